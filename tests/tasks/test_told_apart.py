"""Pairs, numbers and sets of labels: which task the data is for, and what is said when another was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune import data, progress, tasks
from edgetune.data import columns, infer
from edgetune.errors import DataError
from edgetune.recipe import Recipe, load

TEXTS = [f"text number {i}" for i in range(30)]


def asked(path: Path, rows: list[dict[str, object]], task: str = "") -> Recipe:
    file = path / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return load(None, {"data.path": str(file), "task": task, "model": "m"})


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"premise": t, "hypothesis": "it is", "label": "yes"} for t in TEXTS], "text-classification"),
        ([{"sentence": t, "label": i % 3} for i, t in enumerate(TEXTS)], "text-classification"),
        ([{"text": t, "labels": ["a", "b"][: i % 3]} for i, t in enumerate(TEXTS)], "multi-label-classification"),
        ([{"text": t, "label": ["a", "b"]} for t in TEXTS], "multi-label-classification"),
        ([{"text": t, "score": i} for i, t in enumerate(TEXTS)], "text-regression"),
        ([{"text": t, "label": 0.3 + i} for i, t in enumerate(TEXTS)], "text-regression"),
    ],
)
def test_the_task_is_told_from_the_data(tmp_path: Path, rows: list[dict[str, object]], expected: str) -> None:
    assert infer.task(asked(tmp_path, rows)) == expected


def test_pairs_with_a_score_are_for_two_tasks(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"sentence1": t, "sentence2": t[::-1], "score": i / 7} for i, t in enumerate(TEXTS)]
    with pytest.raises(DataError, match="more than one task: text-regression, sentence-similarity"):
        infer.task(asked(tmp_path, rows))


def test_lists_of_labels_are_told_to_be_another_task(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": t, "label": ["a", "b"]} for t in TEXTS]
    with pytest.raises(DataError, match="several labels") as caught:
        data.load(asked(tmp_path, rows, "text-classification"))
    assert "any number of labels for a text is another task:  --task multi-label-classification" in caught.value.details


def test_labels_that_are_numbers_are_told_to_be_another_task(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": t, "label": i % 4 + 0.5} for i, t in enumerate(TEXTS)]
    with progress.collecting() as notes:
        data.load(asked(tmp_path, rows, "text-classification"))
    assert any("--task text-regression learns to say a number" in note for note in notes)
    with progress.collecting() as notes:
        data.load(asked(tmp_path, [{"text": t, "label": f"{i % 4}"} for i, t in enumerate(TEXTS)], "text-classification"))
    assert not any("text-regression" in note for note in notes)


def test_what_is_asked_follows_the_data(tmp_path: Path) -> None:
    pair = {"text": "a", "text_pair": "b", "label": "x"}
    assert tasks.of("text-classification", pair).asks == ("text", "text_pair")
    assert tasks.of("text-classification", {"text", "label"}).asks == ("text",)
    assert tasks.of("text-generation", {"prompt", "completion"}).asks == ("text",)
    assert columns.item(pair, ("text", "text_pair")) == {"text": "a", "text_pair": "b"}
    assert columns.item(pair, ("text",)) == "a", "of a pair, an app may give one text"
    assert columns.item({"prompt": "a", "completion": "b"}, ("text",)) == "a"
