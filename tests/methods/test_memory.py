"""The memory estimate: exact where it can be, in the right order elsewhere, and told."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from transformers import BertConfig, BertForSequenceClassification

from edgetune import progress
from edgetune.methods import memory
from edgetune.methods.device import Device
from edgetune.methods.memory import Estimate
from edgetune.recipe import Recipe

CPU, FAST = Device("cpu", bf16=False), Device("cpu", bf16=True)
CONFIG = BertConfig(vocab_size=300, **tiny.SIZES)


@pytest.fixture(scope="module")
def meta() -> torch.nn.Module:
    with torch.device("meta"):
        return BertForSequenceClassification(CONFIG)


def estimate(meta: torch.nn.Module, method: str, device: Device = CPU, rows: int = 8, tokens: int = 16, **lora: Any) -> Estimate:
    return memory.estimate(Recipe(task="text-classification", method=method, lora=lora), CONFIG, meta, rows, tokens, device)


def test_weights_and_optimizer_by_hand(meta: torch.nn.Module) -> None:
    """Four bytes a weight; gradient and two moments are twelve more."""
    every = sum(weight.numel() for weight in BertForSequenceClassification(CONFIG).parameters())
    found = estimate(meta, "full")
    assert (found.weights, found.adapter, found.optimizer) == (4 * every, 0, 12 * every)
    assert found.total == found.weights + found.optimizer + found.activations
    assert found.available > 0


def test_an_adapter_by_hand(meta: torch.nn.Module) -> None:
    """Two layers of four 32 x 32 and two 32 x 64 matrices, and the pooler."""
    inside = 2 * (4 * (32 + 32) + 2 * (32 + 64)) + (32 + 32)
    found = estimate(meta, "lora", rank=8)
    assert found.adapter == 4 * 8 * inside
    assert found.optimizer == 12 * 8 * inside
    assert estimate(meta, "lora", rank=16).adapter == 2 * found.adapter


def test_a_head_by_hand(meta: torch.nn.Module) -> None:
    """Pooler and classifier, of two labels; the embeddings stay as they are."""
    found = estimate(meta, "head")
    assert found.optimizer == 12 * (32 * 32 + 32 + 2 * 32 + 2)
    assert found.weights == estimate(meta, "full").weights


def test_methods_are_in_their_order(meta: torch.nn.Module) -> None:
    full, head, lora, qlora = (estimate(meta, method, rank=2).total for method in ("full", "head", "lora", "qlora"))
    assert qlora < lora < full
    assert head < full


def test_activations_grow_with_the_batch(meta: torch.nn.Module) -> None:
    one = estimate(meta, "full").activations
    assert estimate(meta, "full", rows=16).activations == 2 * one
    assert estimate(meta, "dann").activations == 2 * one, "as many texts of the target domain"
    assert estimate(meta, "full", tokens=32).activations > 2 * one, "attention grows with the square"
    assert estimate(meta, "full", FAST).activations == one // 2
    by_hand = 8 * 16 * 32 * 2 * (34 + 5 * 4 * 16 / 32) * 2
    assert one == round(by_hand), "s b h L (34 + 5 a s / h), at four bytes instead of two"


def test_logits_of_a_generator_count() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=5000)
    with torch.device("meta"):
        meta = LlamaForCausalLM(config)
    found = memory.estimate(Recipe(task="text-generation", method="lora"), config, meta, 4, 10, CPU)
    assert found.activations > 3 * 4 * 10 * 5000 * 4


def test_it_is_told_and_warned_of_when_tight() -> None:
    mb = memory.MB
    roomy, tight = (Estimate(10 * mb, 0, 20 * mb, 30 * mb, available) for available in (100 * mb, 66 * mb))
    with progress.collecting() as notes:
        memory.tell(roomy, CPU)
    assert notes == ["memory estimate: weights 10 + gradients and optimizer 20 + activations 30 = 60 MB of 100 MB free RAM"]
    with progress.collecting() as notes:
        memory.tell(tight, CPU)
    assert len(notes) == 2 and notes[1].startswith("that is over 90% of the free RAM: use a smaller adapt.batch_size")
