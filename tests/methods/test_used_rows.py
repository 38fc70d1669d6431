"""Training the rows of the embeddings that occur gives what training all of them gives, and leaves the others alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM, BertModel, PreTrainedModel

from edgetune import progress
from edgetune.methods import loop, used_rows
from edgetune.methods.device import Device

EXAMPLES = [{"input_ids": [2, 7 + i % 5, 20 + i % 3, 3], "label": i % 2} for i in range(24)]
USED = sorted(used_rows.tokens(EXAMPLES))


def classifier(path: Path) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(tiny.bert(path), num_labels=2)


def trained(model: PreTrainedModel, ids: Any, scratch: Path, decay: float = 0.0) -> torch.Tensor:
    from edgetune.tasks import text_classification

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    settings = loop.Settings(3, 8, 1, 1e-2, 0.1, decay, 1.0, 0.0, 0, 0, 0, 0)
    problem = loop.Problem(text_classification, EXAMPLES, 0, lambda model: {"x": 0.0}, lambda found: (0.0, 0.0), ("x",), tokens=ids)
    loop.train(model, problem, settings, Device("cpu", bf16=False), scratch)
    weight: torch.Tensor = model.get_input_embeddings().weight
    return weight


def test_the_rows_that_occur_learn_the_same_and_the_others_stay(tmp_path: Path) -> None:
    before = classifier(tmp_path / "model").get_input_embeddings().weight.detach().clone()
    whole = trained(classifier(tmp_path / "model"), None, tmp_path / "whole")
    with progress.collecting() as notes:
        model = classifier(tmp_path / "model")
        part = trained(model, USED, tmp_path / "part", decay=0.0)
    assert f"{len(USED)} of {len(before)} tokens" in notes[0]
    assert type(model.get_input_embeddings()) is torch.nn.Embedding and part.shape == before.shape and part.requires_grad
    assert torch.allclose(whole, part, atol=1e-5)
    others = [i for i in range(len(before)) if i not in USED]
    assert torch.equal(part[others], before[others])
    assert ((part[USED] - before[USED]).abs().max(dim=1).values > 1e-3).all()


def test_a_token_that_was_not_told_of_is_read_as_it_is(tmp_path: Path) -> None:
    model = classifier(tmp_path).eval()
    ids = torch.arange(2, 30).reshape(2, 14)
    with torch.no_grad():
        before = model(input_ids=ids).logits
        with used_rows.only(model, USED):
            assert torch.equal(model(input_ids=ids).logits, before)
            model.get_input_embeddings().weight *= 2
            assert not torch.allclose(model(input_ids=ids).logits, before)
        assert not torch.allclose(model(input_ids=ids).logits, before), "what was trained is kept"


def test_it_is_undone_when_training_is_stopped(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    with pytest.raises(KeyboardInterrupt), used_rows.only(model, USED):
        raise KeyboardInterrupt
    assert type(model.get_input_embeddings()) is torch.nn.Embedding


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    model.get_input_embeddings().requires_grad_(False)
    return model


SMALL: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.mark.parametrize(
    ("model", "ids"),
    [
        (BertForMaskedLM(BertConfig(**SMALL)), USED),
        (_frozen(BertModel(BertConfig(**SMALL))), USED),
        (BertModel(BertConfig(**SMALL)), range(30)),
        (BertModel(BertConfig(**SMALL)), None),
    ],
    ids=["a tied head", "frozen", "most occur", "any may occur"],
)
def test_where_nothing_changes(model: PreTrainedModel, ids: Any) -> None:
    own = model.get_input_embeddings()
    with used_rows.only(model, ids):
        assert model.get_input_embeddings() is own


def test_attention_is_computed_in_steps_while_short_rows_are_learned_in_bfloat16(tmp_path: Path) -> None:
    model = classifier(tmp_path)
    config: Any = model.config
    assert config._attn_implementation == "sdpa"
    for device, tokens, expected in (
        (Device("cpu", bf16=True), 16, "eager"),
        (Device("cpu", bf16=True), 300, "sdpa"),
        (Device("cpu", bf16=False), 16, "sdpa"),
        (Device("cuda", bf16=True), 16, "sdpa"),
    ):
        with device.attention(model, tokens):
            assert config._attn_implementation == expected
        assert config._attn_implementation == "sdpa"
    ids, mask = torch.randint(5, 40, (3, 9)), torch.ones(3, 9, dtype=torch.int64)
    mask[1, 5:] = 0
    with torch.no_grad():
        expected_logits = model.eval()(input_ids=ids, attention_mask=mask).logits
        with Device("cpu", bf16=True).attention(model, 9):
            assert torch.allclose(model(input_ids=ids, attention_mask=mask).logits, expected_logits, atol=1e-5)
