"""linear-probe: nothing but the head differs from the base, and the run says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModel

from edgetune import pipeline
from edgetune.errors import RecipeError
from edgetune.methods.model import load_merged


def test_the_base_is_as_it_was_and_the_head_was_fitted(toy_run: Callable[[str], Any], toy_folder: Path) -> None:
    run = toy_run("linear-probe")
    base = AutoModel.from_pretrained(toy_folder / "model", add_pooling_layer=False).state_dict()
    merged = load_merged(run.merged.path, "text-classification")
    assert base and all(torch.equal(merged.bert.state_dict()[name], weight) for name, weight in base.items())
    facts = run.adapted.facts
    assert (facts["trained_weights"], facts["steps"], facts["history"]) == (0, 0, [])
    assert facts["test"]["accuracy"] > 0.7, "of four labels, with random features"


def test_a_search_over_nothing_is_refused(tmp_path: Path) -> None:
    asked = tiny.recipe(tmp_path, method="linear-probe", search__trials=3)
    with pytest.raises(RecipeError, match="nothing is left to search"):
        pipeline.run(asked, "adapt")
    assert not Path(asked.output).exists()
