"""What pre-training is worth: the same training from random weights, beside the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch

from edgetune import pipeline
from edgetune.errors import RecipeError
from edgetune.methods.model import load_base


def test_the_same_training_from_random_weights_is_a_baseline(tmp_path: Path) -> None:
    folder = tiny.problem(tmp_path)
    keys = {"adapt__epochs": 2, "adapt__baselines": True, "adapt__from_scratch": True}
    run = pipeline.run(tiny.recipe(folder, output=str(tmp_path / "run"), **keys), "adapt")
    report = json.loads((run / "report.json").read_text("utf-8"))
    found, plain = report["from_scratch"], report["adapt"]
    assert plain["baselines"]["from_scratch"] == found["test"] != plain["test"]
    assert (found["steps"], found["settings"]) == (plain["steps"], plain["settings"]), "the same budget"
    assert not found["baselines"], "its own baselines are those of the run"
    assert "from scratch" in (run / "report.html").read_text("utf-8")


def test_random_weights_are_drawn_by_the_seed(tmp_path: Path) -> None:
    folder = tiny.problem(tmp_path)
    recipes = [
        tiny.recipe(folder, adapt__initial=initial, seed=seed)
        for initial, seed in (("random", 0), ("random", 0), ("random", 1), ("pretrained", 0))
    ]
    one, same, other, pretrained = (load_base(recipe, tiny.LABELS).get_input_embeddings().weight for recipe in recipes)
    assert torch.equal(one, same)
    assert not torch.equal(one, other) and not torch.equal(one, pretrained)


@pytest.mark.parametrize("key", ["adapt__initial", "adapt__from_scratch"])
def test_a_frozen_base_is_worth_keeping(tmp_path: Path, key: str) -> None:
    folder = tiny.problem(tmp_path)
    asked = tiny.recipe(folder, method="head", output=str(tmp_path / "run"), **{key: "random" if key == "adapt__initial" else True})
    with pytest.raises(RecipeError, match="is for method full"):
        pipeline.run(asked, "adapt")
    assert not (tmp_path / "run").exists()
