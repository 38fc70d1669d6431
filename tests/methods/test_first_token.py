"""Computing the first token alone in the last layer gives the same answers and the same gradients, and only where a head reads that alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig, PreTrainedModel

from edgetune.methods import first_token

SMALL: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "pad_token_id": 0,
    "num_labels": 3,
}
NAMED = {"DistilBert": {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}, "Electra": {"embedding_size": 8}}
IDS = torch.tensor([[1, 5, 4, 7, 8], [1, 4, 9, 2, 0], [1, 2, 0, 0, 0]])


def build(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, kind.replace("ForSequenceClassification", "Config"))
    own = NAMED.get(kind.replace("ForSequenceClassification", ""), {})
    some = {
        key: value for key, value in SMALL.items() if not ("dim" in own and ("hidden" in key or "num_attention" in key or "inter" in key))
    }
    made: PreTrainedModel = AutoModelForSequenceClassification.from_config(config(**{**some, **own})).eval()
    return made


def learned(model: PreTrainedModel) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    logits = model(input_ids=IDS, attention_mask=(IDS != 0).long()).logits
    logits.square().sum().backward()
    return logits.detach(), {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("kind", first_token.PARTS)
def test_answers_and_gradients_are_the_same(kind: str) -> None:
    model, seen = build(kind), []
    assert type(model).__name__ == kind
    logits, gradients = learned(model)
    last = max((name for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)), key=lambda name: ".2." in name)
    model.get_submodule(last).register_forward_hook(lambda module, given, made: seen.append(made.shape[1]))
    with first_token.only(model):
        narrow, of_narrow = learned(model)
    again, _ = learned(model)
    assert torch.allclose(logits, narrow, atol=1e-6) and torch.equal(logits, again)
    assert seen[0] == 1 and seen[-1] == IDS.shape[1], "the last layer works on one token, and afterwards on all again"
    assert gradients.keys() == of_narrow.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, of_narrow[name], atol=1e-6), name


def test_a_model_that_reads_every_token_stays_as_it_is() -> None:
    model = AutoModelForTokenClassification.from_config(BertConfig(**SMALL)).eval()
    with first_token.only(model):
        assert model(input_ids=IDS).logits.shape == (3, 5, 3)
    assert first_token._part(model) is None


def test_an_adapted_model_is_narrowed_too() -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(build("BertForSequenceClassification"), LoraConfig(target_modules="all-linear", init_lora_weights=False)).eval()
    assert first_token._part(model) is not None
    whole = model(input_ids=IDS).logits
    with first_token.only(model):
        assert torch.allclose(model(input_ids=IDS).logits, whole, atol=1e-6)
