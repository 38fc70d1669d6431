"""--method auto: chosen by what is there, kept by the run, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import pipeline, progress
from edgetune.errors import RecipeError, RunError
from edgetune.methods import auto, memory
from edgetune.recipe import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.problem(tmp_path_factory.mktemp("auto"))


def run(folder: Path, output: Path, until: str = "merge", **changes: Any) -> Path:
    return pipeline.run(tiny.recipe(folder, **{"method": "auto", "adapt__epochs": 1, **changes, "output": str(output)}), until)


def report(path: Path) -> dict[str, Any]:
    return json.loads((path / "report.json").read_text("utf-8"))


def test_the_run_says_what_was_chosen_and_why(folder: Path, tmp_path: Path) -> None:
    with progress.collecting() as notes:
        done = run(folder, tmp_path / "run")
    assert load(done / "recipe.toml").method == "full"
    found = report(done)
    assert found["recipe"]["method"] == found["auto"]["method"] == "full"
    assert found["auto"]["why"].startswith("192 rows, 4 labels with 48 rows in the median, 0.0 M parameters, ")
    assert f"method: full (auto: {found['auto']['why']})" in notes
    assert "Method full (auto: 192 rows, 4 labels" in (done / "report.html").read_text("utf-8")
    assert (done / "merged" / "config.json").is_file()


def test_the_choice_stands(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although memory has become short; and `full` by name is the same run."""
    done = run(folder, tmp_path / "run", "adapt")
    before = (done / "manifest.json").read_text("utf-8")
    monkeypatch.setattr(auto, "choose", lambda case: pytest.fail("chosen again"))
    with progress.collecting() as notes:
        run(folder, tmp_path / "run", "adapt")
    assert any(note.startswith("method: full (auto: ") for note in notes)
    run(folder, tmp_path / "run", "adapt", method="full")
    assert (done / "manifest.json").read_text("utf-8") == before
    with pytest.raises(RunError, match="another training recipe"):
        run(folder, tmp_path / "run", "adapt", method="lora")


def test_a_run_with_a_method_is_not_chosen_for(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "run", "adapt", method="head")
    with pytest.raises(RunError) as raised:
        run(folder, tmp_path / "run", "adapt")
    assert raised.value.details == ("method: 'head' in the run, 'auto' asked",)


def test_few_rows_of_a_base_that_compares_texts(folder: Path, tmp_path: Path) -> None:
    (folder / "model" / "modules.json").write_text("[]")
    try:
        done = run(folder, tmp_path / "run", "adapt", data__shots=5)
    finally:
        (folder / "model" / "modules.json").unlink()
    assert report(done)["auto"]["method"] == "few-shot"
    assert "4 labels with 5 rows in the median" in report(done)["auto"]["why"]
    assert len(report(done)["adapt"]["labels"]) == 4


def test_nothing_fits_and_then_the_user_decides(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000}))
        with pytest.raises(RecipeError, match="no method fits") as raised:
            run(folder, tmp_path / "run", "adapt")
    assert any(detail.startswith("full: takes about ") for detail in raised.value.details)
    done = run(folder, tmp_path / "run", "adapt", method="head")
    assert report(done)["recipe"]["method"] == "head"


def test_killed_before_the_training(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.methods import full

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(full, "attach", killed)
        with pytest.raises(Killed):
            run(folder, tmp_path / "run", "adapt")
    done = run(folder, tmp_path / "run", "adapt")
    assert report(done)["auto"]["method"] == "full" and report(done)["adapt"]["steps"] > 0


def test_with_a_search(folder: Path, tmp_path: Path) -> None:
    done = run(folder, tmp_path / "run", "adapt", search__trials=2)
    assert len(report(done)["adapt"]["search"]["trials"]) == 2
    with pytest.raises(RecipeError, match="nothing is left to search"):
        run(folder, tmp_path / "nothing", "adapt", search__trials=2, adapt__label_smoothing=0.0)
    with pytest.raises(RecipeError, match="nothing is compared"):
        run(folder, tmp_path / "none", "adapt", search__trials=1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("task", "method"),
    [("token-classification", "full"), ("text-regression", "full"), ("sentence-similarity", "full"), ("fill-mask", "full")],
)
def test_what_is_known_of_other_tasks(folder: Path, task: str, method: str) -> None:
    """No task is taken for one with a label a row; the model is never loaded."""
    from edgetune.artifact import Dataset
    from edgetune.stages import choose

    facts = {
        "rows": {"train": 50},
        "label_counts": {"train": {"B-a": 3, "I-a": 3}} if task == "token-classification" else {},
        "labels": ["B-a", "I-a"] if task == "token-classification" else [],
        "out_of_scope": None,
        "columns": {"text": "text", "text_pair": "b"},
        "characters": {"train": {"text": {"max": 30}}},
    }
    recipe = tiny.recipe(folder, task=task, method="auto")
    found = choose.case(recipe, Dataset(Path(), "digest", facts))
    assert found.rows_a_label == 0 and found.needs["full"] > 0
    assert found.has_head == (task in ("token-classification", "text-regression"))
    assert auto.choose(found)[0] == method
