"""What is asked of the candidates: budgets of the recipe and of the target, and which lengths are real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from edgetune import target, tasks
from edgetune.fit import choice
from edgetune.profile import Budget


def test_the_targets_budget_counts_too_and_the_recipe_goes_over_it() -> None:
    device = target.load("arm64")
    small = device.model_copy(update={"budget": Budget(size_mb=3, max_drop=0.2, max_perplexity_increase=0.3)})
    encoder, decoder = tasks.get("text-classification"), tasks.get("text-generation")
    none = tiny.recipe(Path(), export__max_drop=None)
    assert choice._size(none, device) is None
    assert choice._size(none, small) == 3e6
    assert choice._size(tiny.recipe(Path(), export__max_size_mb=1), small) == 1e6
    assert (choice.allowed(none, small, encoder), choice.allowed(none, small, decoder)) == (0.2, 0.3)
    assert choice.allowed(tiny.recipe(Path(), export__max_drop=0.0), small, encoder) == 0.0


@pytest.mark.parametrize("count", [1, 5, 64, 1000])
def test_real_lengths_are_spread_over_the_test_rows(count: int) -> None:
    examples = [{"input_ids": [0] * (1 + i % 50)} for i in range(count)]
    lengths = choice._lengths(examples)
    every = sorted(len(e["input_ids"]) for e in examples)
    assert len(lengths) == min(64, count)
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (every[0], every[-1])
    assert np.mean(lengths) == pytest.approx(np.mean(every), rel=0.05)
