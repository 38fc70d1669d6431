from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune import data
from edgetune.errors import GateError, RunError
from edgetune.recipe import Recipe, load
from edgetune.stages.prepare import prepare

TEXTS = [f"text {i}\u2028\u0085 \u00e9" for i in range(60)]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": text, "label": i % 3} for i, text in enumerate(TEXTS)] + [{"text": TEXTS[0], "label": 0}]))
    return load(None, {"task": "text-classification", "data.path": str(path)})


def test_what_is_written_is_what_was_loaded(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    facts = prepare(recipe, out)
    loaded = data.load(recipe)
    assert sorted(path.name for path in out.iterdir()) == ["test.jsonl", "train.jsonl", "validation.jsonl"]
    assert {split: data.rows(out, split) for split in data.SPLITS} == loaded.splits
    assert facts == loaded.facts
    assert sorted(row["text"] for split in data.SPLITS for row in data.rows(out, split)) == sorted(TEXTS)


def test_no_rows_to_read_back(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no train\.jsonl"):
        data.rows(tmp_path, "train")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda splits: splits["train"].pop(), "61 rows were read, but 59 are used and 1 reported"),
        (lambda splits: splits["test"].__setitem__(0, splits["train"][0]), "train and test share 1 texts"),
        (lambda splits: splits["test"].__setitem__(0, splits["validation"][0]), "validation and test share 1 texts"),
    ],
)
def test_a_broken_promise_is_refused(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Any], Any], said: str
) -> None:
    loaded = data.load(recipe)
    damage(loaded.splits)
    monkeypatch.setattr(data, "load", lambda *_: loaded)
    with pytest.raises(GateError, match=said):
        prepare(recipe, tmp_path)
