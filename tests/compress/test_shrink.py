"""Fewer layers and narrower blocks, copied from the model, in a form that transformers loads again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from edgetune.compress import LADDER, Size, shrink, sizes
from edgetune.errors import ModelError
from edgetune.sections import CompressKeys

SIZES = {"hidden_size": 16, "num_hidden_layers": 6, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50, "num_labels": 5}
FAMILIES = {
    "bert": lambda: transformers.BertConfig(**SIZES),
    "roberta": lambda: transformers.RobertaConfig(**SIZES, max_position_embeddings=40, pad_token_id=1),
    "distilbert": lambda: transformers.DistilBertConfig(dim=16, n_layers=6, n_heads=2, hidden_dim=32, vocab_size=50, num_labels=5),
    "electra": lambda: transformers.ElectraConfig(**SIZES, embedding_size=16),
}


def build(family: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.AutoModelForSequenceClassification.from_config(FAMILIES[family]()).eval()


def answer(model: transformers.PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(2, 14).reshape(2, 6), attention_mask=torch.ones(2, 6, dtype=torch.long)).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_smaller_model_is_loaded_as_it_was_saved(family: str, tmp_path: Path) -> None:
    model = build(family)
    before = answer(model)
    student = shrink.shrink(model, 3, 8).eval()
    student.save_pretrained(tmp_path)
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.equal(answer(again), answer(student))
    assert (shrink.layers(again.config), shrink.feed_forward(again.config)) == (3, 8)
    assert again.num_parameters() < model.num_parameters()
    assert torch.equal(answer(model), before), "the teacher is left alone"


def test_dead_neurons_are_what_goes() -> None:
    """Where half of the neurons write nothing, dropping that half changes nothing."""
    model = build("bert")
    chance = torch.Generator().manual_seed(1)
    for layer in model.bert.encoder.layer:
        dead = torch.randperm(32, generator=chance)[:16]
        with torch.no_grad():
            layer.output.dense.weight[:, dead] = 0
    assert torch.allclose(answer(shrink.shrink(model, 0, 16).eval()), answer(model), atol=1e-6)


def test_layers_that_do_nothing_can_go() -> None:
    model = build("bert")
    with torch.no_grad():
        for i in (1, 3, 4):
            layer = model.bert.encoder.layer[i]
            for part in (layer.attention.output.dense, layer.output.dense):
                part.weight.zero_()
                part.bias.zero_()
    for layer in model.bert.encoder.layer:  # a norm of what is normal already changes nothing
        layer.attention.output.LayerNorm.eps = layer.output.LayerNorm.eps = 1e-12
    assert torch.allclose(answer(shrink.shrink(model, 3).eval()), answer(model), atol=1e-4)


@pytest.mark.parametrize(
    ("total", "keep", "kept"), [(6, 3, [0, 2, 5]), (6, 2, [0, 5]), (6, 1, [0]), (12, 4, [0, 4, 7, 11]), (6, 6, list(range(6)))]
)
def test_layers_that_stay(total: int, keep: int, kept: list[int]) -> None:
    assert shrink.chosen(total, keep) == kept


def test_more_than_there_is() -> None:
    with pytest.raises(ModelError, match=r"compress\.layers = 7, but the model has 6"):
        shrink.shrink(build("bert"), 7)
    with pytest.raises(ModelError, match="feed_forward = 33"):
        shrink.shrink(build("bert"), 0, 33)


def test_blocks_that_are_not_known_are_refused() -> None:
    """Gated blocks have two ways in."""
    model = transformers.AutoModelForSequenceClassification.from_config(
        transformers.LlamaConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50, num_labels=3, pad_token_id=0
        )
    )
    with pytest.raises(ModelError, match="feed-forward blocks"):
        shrink.shrink(model, 0, 16)


def test_what_the_search_tries() -> None:
    tried = sizes(CompressKeys(), True, 6, 1536, 30522)
    assert tried[0] == Size(), "the model as it is, first"
    assert len(tried) == len(LADDER) + 1
    assert [size.name for size in tried[1:3]] == ["8000entries", "3layers-8000entries"]
    assert not tried[1].learns and tried[2].learns


def test_what_was_asked_is_fixed() -> None:
    asked = CompressKeys(layers=2, vocabulary=0)
    assert {(size.layers, size.vocabulary) for size in sizes(asked, True, 6, 1536, 30522)} == {(2, 0)}
    assert sizes(asked, False, 6, 1536, 30522) == (Size(layers=2),)
    assert sizes(CompressKeys(), False, 6, 1536, 30522) == (Size(),)
