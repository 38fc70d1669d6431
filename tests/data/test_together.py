"""Labels of several tasks: a column each, an object, or a data set each; what does not go together is refused with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.data import digests, infer
from edgetune.recipe import load

Folder = Callable[..., Path]
TASK = {"task": "multi-task"}


def table(*names: str, labels: str = "ab", text: str = "text", label: str = "label") -> str:
    """A CSV of 40 texts with two labels."""
    return f"{text},{label}\n" + "".join(f"{names[0]} {i},{labels[i % 2]}\n" for i in range(40))


def test_columns_of_a_table(folder: Folder, loaded: Any) -> None:
    rows = "".join(f"text {i},{'xy'[i % 2]},{'low' if i % 3 else ''},{i}\n" for i in range(60))
    path = folder(**{"all.csv": "text,about,urgency,id\n" + rows + "late,x,high,1\nlater,x,high,1\nlast,x,high,1\n"}) / "all.csv"
    found, _notes = loaded(path, **TASK, **{"data.tasks": "about,urgency"})
    every = {row["row"]: row["tasks"] for rows in found.splits.values() for row in rows}
    assert every[2] == {"about": "x"} and every[3] == {"about": "y", "urgency": "low"}, "an empty cell is no answer"
    assert found.facts["labels"] == ["about:x", "about:y", "urgency:high", "urgency:low"]
    assert found.facts["columns"] == {"text": "text", "tasks": "about,urgency"}
    assert infer.task(load(None, {"data.path": str(path), "data.tasks": "about,urgency"})) == "multi-task"


def test_objects(folder: Folder, loaded: Any, refused: Any) -> None:
    rows = [f'{{"text": "text {i}", "tasks": {{"about": "{"xy"[i % 2]}", "urgency": null}}}}' for i in range(40)]
    path = folder(**{"all.jsonl": "\n".join(rows)})
    found, _ = loaded(path / "all.jsonl", **TASK)
    assert found.facts["labels"] == ["about:x", "about:y"]
    assert infer.task(load(None, {"data.path": str(path / "all.jsonl")})) == "multi-task"
    for bad, why in (
        ('{"text": "t", "tasks": {}}', "no labels of tasks"),
        ('{"text": "t", "tasks": {"a:b": "x"}}', "a task whose name has a colon"),
        ('{"text": "t", "tasks": {"a": ["x"]}}', "several labels of a task"),
        ('{"text": "t", "tasks": "x"}', 'tasks that are no object such as {"task": "label"}'),
        ('{"text": "t"}', "no labels of tasks"),
    ):
        said = refused(folder(**{"bad.jsonl": "\n".join([*rows, bad])}) / "bad.jsonl", **TASK)
        assert why in said and "41" in said


@pytest.mark.parametrize("silent", ['""', '"  "', "null", "NaN"])
def test_no_label_is_no_answer(folder: Folder, loaded: Any, silent: str) -> None:
    rows = [f'{{"text": "text {i}", "tasks": {{"about": "{"xy"[i % 2]}", "urgency": {silent}}}}}' for i in range(40)]
    found, _ = loaded(folder(**{"all.jsonl": "\n".join(rows)}) / "all.jsonl", **TASK)
    assert found.facts["labels"] == ["about:x", "about:y"] and sum(found.facts["rows"].values()) == 40


def test_a_data_set_each(folder: Folder, loaded: Any) -> None:
    path = folder(
        **{"bank/train.csv": table("bank"), "mood/train.csv": table("mood", labels="+-", text="utterance", label="intent"), "NOTES": "x"}
    )
    found, notes = loaded(path, **TASK)
    assert found.facts["labels"] == ["bank:a", "bank:b", "mood:+", "mood:-"]
    assert {row["file"] for row in found.splits["test"]} == {"bank/train.csv", "mood/train.csv"}
    assert sum(found.facts["rows"].values()) == 80
    assert "2 data sets, each a task: bank, mood" in notes
    recipe = load(None, {"data.path": str(path)})
    assert infer.task(recipe) == "multi-task"
    assert {Path(name).parts[-2:] for name in digests(recipe.data)} == {("bank", "train.csv"), ("mood", "train.csv")}


def test_another_task_has_one_data_set(folder: Folder, refused: Any) -> None:
    said = refused(folder(**{"bank/train.csv": table("bank"), "mood/train.csv": table("mood")}))
    assert "holds 2 data sets: bank, mood" in said and "--task multi-task" in said


def test_bad_rows_are_named_by_data_set(folder: Folder, refused: Any) -> None:
    said = refused(folder(**{"bank/train.csv": table("bank") + "no label,\n", "mood/train.csv": table("mood")}), **TASK)
    assert "bank/train.csv" in said and "no labels of tasks" in said and "42" in said


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"bank/train.csv": table("a"), "mood/train.csv": table("b"), "mood/test.csv": table("c")}, '"bank" has no test file'),
        ({"bank/train.csv": table("a"), "mood/train.csv": table("b", label="what")}, "label: none of"),
        (
            {"bank/train.csv": table("a"), "mood/train.csv": "premise,hypothesis,label\n" + "a,b,c\n" * 9},
            '"mood" has pairs of texts, and "bank" has single ones',
        ),
        ({"bank/train.csv": table("a"), "mood/train.csv": table("b", labels="xx")}, "one label only for mood"),
    ],
)
def test_what_does_not_go_together(folder: Folder, refused: Any, files: dict[str, str], why: str) -> None:
    assert why in refused(folder(**files), **TASK)


def test_a_column_that_is_not_there(folder: Folder, refused: Any) -> None:
    said = refused(folder(**{"all.csv": table("a")}) / "all.csv", **TASK, **{"data.tasks": "label,urgencie"})
    assert 'no column "urgencie" (data.tasks)' in said and "columns found: text, label" in said
