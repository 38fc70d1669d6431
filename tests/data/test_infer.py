"""The task is told from the columns, and from what they hold; what could be two is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune import pipeline, progress, tasks
from edgetune.data import infer
from edgetune.errors import DataError, RecipeError

from .conftest import task

Folder = Callable[..., Path]
TEXT = ("text", "sentence")
TASKS: dict[str, dict[str, tuple[str, ...]]] = {
    "text-classification": {"text": (*TEXT, "input"), "label": ("label", "labels", "intent")},
    "text-generation": {"prompt": ("prompt", "instruction", "question", "input"), "completion": ("completion", "answer", "output")},
    "multi-label": {"text": TEXT, "labels": ("labels", "tags")},
    "token-classification": {"text": TEXT, "tags": ("tags", "ner_tags", "labels")},
    "intent-slots": {"text": TEXT, "tags": ("tags", "slots"), "intent": ("intent",)},
    "question-answering": {"question": ("question",), "context": ("context",), "answers": ("answers", "answer")},
    "sentence-similarity": {"text": ("text", "sentence1"), "text_pair": ("text_pair", "sentence2"), "score": ("score", "label")},
    "relation-extraction": {"text": TEXT, "label": ("label", "relation")},
    "summarization": {"source": ("source", "document"), "target": ("target", "summary")},
    "translation": {"source": ("source",), "target": ("target",)},
    "fill-mask": {"text": TEXT},
}


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "TASKS", {name: task(name, columns) for name, columns in TASKS.items()})


MARKED = "the <e1>dog</e1> of <e2>Ann</e2>"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "text,label\na b,x\n", "text-classification"),
        ("a.jsonl", {"text": "a b", "labels": "x"}, "text-classification"),
        ("a.jsonl", {"text": "a b", "labels": ["x", "y"]}, "multi-label"),
        ("a.csv", "text,labels\na b,x|y\n", "multi-label"),
        ("a.csv", "instruction,input,output\na,b,c\n", "text-generation"),
        ("a.jsonl", {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "text-generation"),
        ("a.csv", "question,answer\na,b\n", "text-generation"),
        ("a.conll", "EU B-ORG\n", "token-classification"),
        ("a.jsonl", {"tokens": ["a"], "labels": ["O"]}, "token-classification"),
        ("a.jsonl", {"text": "a", "spans": []}, "token-classification"),
        ("a.json", {"Play": [{"data": [{"text": "a", "entity": "x"}]}]}, "intent-slots"),
        ("a.jsonl", {"question": "a", "context": "b", "answers": {"text": [], "answer_start": []}}, "question-answering"),
        ("a.csv", "sentence1,sentence2,score\na,b,1.5\n", "sentence-similarity"),
        ("a.csv", "text,text_pair,label\na,b,1.5\n", "sentence-similarity"),
        ("a.csv", "text,label\na b,1\n", "text-classification"),
        ("a.jsonl", {"text": MARKED, "label": "owns"}, "relation-extraction"),
        ("a.csv", "document,summary\na,b\n", "summarization"),
        ("a.txt", "just a text\n", "fill-mask"),
    ],
)
def test_told_from_the_columns(folder: Folder, recipe: Any, name: str, content: Any, expected: str) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    with progress.collecting() as notes:
        assert infer.task(recipe(folder(**{name: text}) / name, "")) == expected
    assert notes == [f"no task given: read as {expected}, whose columns the data has"]


def test_a_column_that_is_named_decides(folder: Folder, recipe: Any) -> None:
    path = folder(**{"a.jsonl": json.dumps({"text": "a", "tags": ["O"], "tokens": ["a"], "intent": "x"})}) / "a.jsonl"
    assert infer.task(recipe(path, "")) == "intent-slots"
    assert infer.task(recipe(path, "", **{"data.label": "intent"})) == "text-classification"
    assert infer.task(recipe(path, "", **{"data.labels": "tags"})) == "multi-label"


def test_what_could_be_two_tasks_is_asked(folder: Folder, recipe: Any) -> None:
    with pytest.raises(DataError, match=r"a\.csv can be for more than one task: summarization, translation") as caught:
        infer.task(recipe(folder(**{"a.csv": "source,target\na,b\n"}) / "a.csv", ""))
    assert caught.value.mend == "say which:  --task summarization"
    assert caught.value.details == ("summarization: title of summarization", "translation: title of translation")


@pytest.mark.parametrize("name", tasks.TASKS)
def test_every_task_is_told_from_its_own_example(folder: Folder, recipe: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Or asked, where another task has the same columns."""
    monkeypatch.setattr(infer, "TASKS", tasks.TASKS)
    path = folder(**{"a.jsonl": tasks.TASKS[name].example}) / "a.jsonl"
    try:
        said = infer.task(recipe(path, ""))
    except DataError as error:
        said = str(error)
    assert said == name or ("more than one task" in said and name in said)


def test_no_task_fits(folder: Folder, recipe: Any) -> None:
    with pytest.raises(DataError, match=r"a\.csv: no task has these columns") as caught:
        infer.task(recipe(folder(**{"a.csv": "id,catgory\n1,2\n"}) / "a.csv", ""))
    assert "text-classification: text: none of text, sentence, input" in caught.value.details[0]
    assert caught.value.details[-1] == "columns found: id, catgory"


def test_a_run_without_a_task_takes_that_of_its_data(folder: Folder, recipe: Any) -> None:
    path = folder(**{"a.csv": "text,label\na b,x\n"}) / "a.csv"
    with progress.collecting() as notes, pytest.raises(RecipeError, match="the recipe lacks model, output"):
        pipeline.run(recipe(path, "", method="full"))
    assert notes == ["no task given: read as text-classification, whose columns the data has"]
