"""A run starts from another one's model: what of it stays, what is refused, and that the other run may go away afterwards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file

from edgetune import pipeline
from edgetune.errors import RecipeError, RequestError, RunError
from edgetune.recipe import Recipe

QUICK = {"adapt__max_steps": 2, "adapt__epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data, texts, and a merged run `old` of fill-mask on the texts."""
    folder = tiny.problem(tmp_path_factory.mktemp("start"), rows=160)
    (folder / "texts.txt").write_text("\n".join(text for text, _ in tiny.sentences(160, seed=3)) + "\n")
    asked = tiny.recipe(
        folder, task="fill-mask", data__path=str(folder / "texts.txt"), output=str(folder / "old"), adapt__max_length=48, **QUICK
    )
    pipeline.run(asked, "merge")
    return folder


def after(folder: Path, output: Path, **changes: Any) -> Recipe:
    keys = {"model": "", "start": str(folder / "old"), "output": str(output), **QUICK}
    return tiny.recipe(folder, **{**keys, **changes})


def report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text("utf-8"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("bert."): weight for name, weight in load_file(folder / "model.safetensors").items()}


@pytest.mark.parametrize("method", ["head", "lora"])
def test_the_body_is_that_of_the_other_run_and_the_head_is_new(folder: Path, tmp_path: Path, method: str) -> None:
    """A frozen body is in the new run bit for bit; and the other run may go away before merge."""
    shutil.copytree(folder / "old", tmp_path / "old")
    recipe = after(tmp_path, tmp_path / "run", method=method, data__path=str(folder / "data.csv"))
    run = pipeline.run(recipe, "adapt")
    kept, old, base = weights(run / "start"), weights(tmp_path / "old" / "merged"), weights(folder / "model")
    assert kept and kept.keys() <= old.keys() and not any(name.startswith(("cls", "pooler")) for name in kept)
    assert all(torch.equal(weight, old[name]) for name, weight in kept.items())
    assert not all(torch.equal(weight, base[name]) for name, weight in kept.items()), "the other run has learned something"
    facts = report(run)
    assert facts["start"]["head"] == "new" and facts["start"]["task"] == "fill-mask"
    assert facts["recipe"]["model"] == str(folder / "model"), "the base of both"
    assert facts["adapt"]["max_length"] == 48
    shutil.rmtree(tmp_path / "old")
    manifest = (run / "manifest.json").read_text("utf-8")
    assert pipeline.run(recipe, "adapt") == run and (run / "manifest.json").read_text("utf-8") == manifest
    pipeline.merge(run)
    if method == "head":
        merged = weights(run / "merged")
        assert all(torch.equal(weight, merged[name]) for name, weight in kept.items())


def test_a_general_head_stays_and_a_head_of_labels_does_not(folder: Path, tmp_path: Path) -> None:
    again = pipeline.run(after(folder, tmp_path / "mask", task="fill-mask", data__path=str(folder / "texts.txt")), "adapt")
    assert report(again)["start"]["head"] == "kept"
    assert weights(again / "start").keys() == weights(folder / "old" / "merged").keys()
    first = pipeline.run(after(folder, tmp_path / "one"), "merge")
    other = pipeline.run(after(tmp_path, tmp_path / "two", start=str(first), data__path=str(folder / "data.csv")), "adapt")
    assert report(other)["start"]["head"] == "new"
    assert not any(name.startswith("classifier") for name in weights(other / "start"))
    assert "pooler.dense.weight" in weights(other / "start"), "which the other run has trained"


def test_another_model_in_the_other_run_is_noticed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "old", tmp_path / "old")
    recipe = after(tmp_path, tmp_path / "run", data__path=str(folder / "data.csv"))
    before = report(pipeline.run(recipe, "adapt"))["start"]["merged"]
    shutil.rmtree(tmp_path / "old")
    texts = {"task": "fill-mask", "data__path": str(folder / "texts.txt"), "adapt__max_length": 48}
    pipeline.run(tiny.recipe(folder, output=str(tmp_path / "old"), **texts, **QUICK, adapt__learning_rate=1e-2), "merge")
    assert report(pipeline.run(recipe, "adapt"))["start"]["merged"] != before


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"model": "another"}, RecipeError, "--from .* and --model another both say"),
        ({"continual__run": "any"}, RecipeError, "--from and --continue both say"),
        ({"task": "text-generation"}, RecipeError, r"a run of fill-mask, whose model \(encoder\) is of no use"),
        ({"start": "nowhere"}, RunError, "nowhere is not a run directory"),
        ({"method": "none"}, RecipeError, "trained elsewhere"),
    ],
)
def test_what_cannot_be_started_from(folder: Path, tmp_path: Path, changes: dict[str, Any], error: type[RequestError], said: str) -> None:
    with pytest.raises(error, match=said):
        pipeline.run(after(folder, tmp_path / "run", **changes), "adapt")
    assert not (tmp_path / "run").exists()


def test_runs_that_nothing_can_start_from(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot start from itself"):
        pipeline.run(after(folder, folder / "old"), "adapt")
    shutil.copytree(folder / "old", tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "merged")
    with pytest.raises(RunError, match="is not finished"):
        pipeline.run(after(tmp_path, tmp_path / "run"), "adapt")
    assert not (tmp_path / "run").exists()
