"""Test sets of another domain: measured, never learned from, and refused before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import pipeline
from edgetune.errors import DataError, EdgetuneError, RecipeError
from edgetune.recipe import ELSEWHERE, Recipe, load
from edgetune.workspace import Workspace

ROWS = [row for row in tiny.sentences(80, seed=9) if row[1] != "music"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and rows of another draw, some of them beyond use, one of them known."""
    place = tiny.problem(tmp_path_factory.mktemp("others"), rows=120)
    known = tiny.sentences(120)[0]
    tiny.table(place / "far.csv", [*ROWS, ("a lamp", "chandelier"), known])
    tiny.table(place / "near.csv", tiny.sentences(40, seed=5))
    pipeline.run(tiny.recipe(place, adapt__epochs=2, data__on_bad_row="drop"), "adapt")
    return place


def asked(folder: Path, **changes: Any) -> Recipe:
    sets = [f"far={folder / 'far.csv'}", str(folder / "near.csv")]
    return tiny.recipe(folder, **{"adapt__epochs": 2, "data__on_bad_row": "drop", "data__other_tests": sets, **changes})


def test_a_finished_run_is_measured_and_not_trained_again(folder: Path) -> None:
    run = Workspace(folder / "run")
    before = run.manifest["stages"]["adapt"]
    pipeline.run(asked(folder), "adapt")
    after = run.manifest["stages"]
    assert after["adapt"] == before
    facts = after["other_tests"]["facts"]["sets"]
    far, near = facts["far"], facts["near"]
    assert (near["rows"], near["overlap"], near["dropped"]) == (40, 0, [])
    assert far["rows"] == len(ROWS) + 1 and far["overlap"] <= 1
    assert [one["reason"] for one in far["dropped"]] == ["a label never seen in train"]
    assert near["tokens"]["unknown"] == 0 < near["tokens"]["a_word"] and after["adapt"]["facts"]["tokens"]["unknown"] == 0
    assert far["ci95"][0] < far["metrics"]["accuracy"] == far["value"] < far["ci95"][1]
    notes = " ".join(after["other_tests"]["notes"])
    assert "far: 1 rows dropped: 1 with a label never seen in train" in notes
    assert "far has no row of 1 of 4 labels: music" in notes
    page = (folder / "run" / "report.html").read_text("utf-8")
    assert "Other test sets" in page and ">near</th>" in page


def test_its_own_test_rows_score_what_the_run_said(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "data" / "test.jsonl").read_text("utf-8").splitlines()]
    tiny.table(tmp_path / "again.csv", [(row["text"], row["label"]) for row in rows])
    sets = [f"again={tmp_path / 'again.csv'}"]
    pipeline.run(asked(folder, data__other_tests=sets, output=str(tmp_path / "run")), "adapt")
    found = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))["other_tests"]["sets"]["again"]
    assert found["metrics"] == pytest.approx(facts["adapt"]["test"])


def test_what_cannot_be_used_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("text,text_pair,label\na lamp,a song,lights\n")
    cases: dict[str, tuple[type[EdgetuneError], str]] = {
        f"far={folder / 'far.csv'}": (DataError, "1 of .* rows in far.csv has a label never seen in train"),
        f"pairs={pairs}": (DataError, "pairs.csv has label and text and text_pair, the training rows have label and text"),
        f"gone={tmp_path / 'gone.csv'}": (DataError, "no file or folder"),
        f"here={tmp_path}": (DataError, "is a folder"),
        f"test={folder / 'near.csv'}": (RecipeError, "test is the name of a split"),
        f"a b={folder / 'near.csv'}": (RecipeError, "is not NAME=FILE"),
        f"near={folder / 'near.csv'},{folder / 'near.csv'}": (RecipeError, "two are called near"),
    }
    for given, (kind, message) in cases.items():
        recipe = asked(folder, data__on_bad_row="error", data__other_tests=given, output=str(tmp_path / "new"))
        with pytest.raises(kind, match=message):
            pipeline.run(recipe, "adapt")
        assert not (tmp_path / "new").exists(), given


def test_a_model_that_was_trained_elsewhere(folder: Path, tmp_path: Path) -> None:
    tiny.classifier(tmp_path / "model")
    keys = {"model": str(tmp_path / "model"), "task": "text-classification", "method": ELSEWHERE, "output": str(tmp_path / "run")}
    pipeline.run(load(None, {**keys, "data.path": str(folder / "data.csv"), "data.other_tests": f"near={folder / 'near.csv'}"}), "merge")
    assert Workspace(tmp_path / "run").manifest["stages"]["other_tests"]["facts"]["sets"]["near"]["rows"] == 40


def test_a_language_that_the_base_does_not_know_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run", tmp_path / "run")
    tiny.table(folder / "zh.csv", [(f"打开 {i} 灯", label) for i, label in enumerate(tiny.LABELS)])
    pipeline.run(asked(folder, output=str(tmp_path / "run"), data__other_tests=[str(folder / "zh.csv")]), "adapt")
    facts = Workspace(tmp_path / "run").manifest["stages"]["other_tests"]
    assert facts["facts"]["sets"]["zh"]["tokens"]["unknown"] > 0.5
    assert any(note.startswith("zh: the base does not know") for note in facts["notes"])
    assert "unknown tokens" in (tmp_path / "run" / "report.html").read_text("utf-8")
