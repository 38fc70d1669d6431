"""Columns are found by name and said; what cannot be told apart is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.data.columns import MESSAGES, key

Folder = Callable[..., Path]


def table(*names: str, rows: int = 30) -> str:
    return "\n".join(
        [",".join(names), *(",".join(f"{name} {i % (2 if 'text' not in name.lower() else 99)}" for name in names) for i in range(rows))]
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("text", "category"), {"text": "text", "label": "category"}),
        (("Text", "LABEL"), {"text": "Text", "label": "LABEL"}),
        (("id", "intent", "text"), {"text": "text", "label": "intent"}),
        (("text", "query", "label", "intent"), {"text": "text", "label": "label"}),  # the canonical name wins
        (("text ", " label"), {"text": "text", "label": "label"}),
    ],
)
def test_found_by_name(folder: Folder, loaded: Any, names: tuple[str, ...], expected: dict[str, str]) -> None:
    found, notes = loaded(folder(**{"rows.csv": table(*names)}) / "rows.csv")
    assert found.facts["columns"] == expected
    assert found.facts["columns_given"] == []
    assert f'columns: text = "{expected["text"]}", label = "{expected["label"]}" (found by name)' in notes
    assert set(found.splits["train"][0]) == {"text", "label", "row", "file"}


def test_named_by_the_recipe(folder: Folder, loaded: Any, refused: Any) -> None:
    path = folder(**{"rows.csv": table("text", "category", "intent")}) / "rows.csv"
    found, _ = loaded(path, **{"data.label": "intent"})
    assert found.facts["columns"] == {"text": "text", "label": "intent"}
    assert found.facts["columns_given"] == ["label"]
    assert found.splits["train"][0]["label"].startswith("intent")
    said = refused(path, **{"data.label": "intnt"})
    assert 'label: no column "intnt" (did you mean "intent"?)' in said
    assert "columns found: text, category, intent" in said


def test_ambiguous(folder: Folder, refused: Any) -> None:
    said = refused(folder(**{"rows.csv": table("text", "category", "intent")}) / "rows.csv")
    assert "label: more than one column could be it: category, intent" in said
    assert "--set data.label=category" in said


def test_missing_columns_name_what_is_there(folder: Folder, refused: Any) -> None:
    said = refused(folder(**{"rows.csv": table("id", "catgory")}) / "rows.csv")
    assert "text: none of text, sentence" in said
    assert "label: none of label, labels, category" in said
    assert '(did you mean "catgory"?)' in said
    assert "columns found: id, catgory" in said
    assert "--set data.text=COLUMN --set data.label=COLUMN" in said


def test_every_file_needs_the_columns(folder: Folder, refused: Any) -> None:
    said = refused(folder(**{"train.csv": table("text", "category"), "test.csv": table("text", "categories")}))
    assert 'test.csv has no column "category", which train.csv has (did you mean "categories"?)' in said


def test_labels_become_strings(folder: Folder, loaded: Any) -> None:
    rows = [{"text": f"t {i}", "label": [1, 2.0, True, " x "][i % 4]} for i in range(40)]
    found, notes = loaded(folder(**{"rows.json": json.dumps(rows)}) / "rows.json")
    assert found.facts["labels"] == ["1", "2", "true", "x"]
    assert "10 labels had blanks around" in notes


@pytest.mark.parametrize("source", ["parquet", "hub"])
def test_class_labels_become_their_names(tmp_path: Path, loaded: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    rows = datasets.Dataset.from_dict({"text": [f"t {i}" for i in range(40)], "label": [0, 1] * 20}, features=features)
    unlabelled = datasets.Dataset.from_dict({"text": ["u"], "label": [-1]}, features=features)
    splits = {"train": rows, "test": unlabelled, "unsupervised": unlabelled}
    if source == "parquet":
        for name, part in splits.items():
            part.to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
        path, test = str(tmp_path), "test-00000-of-00001.parquet"
    else:
        monkeypatch.setattr(datasets, "load_dataset", {"owner/name": datasets.DatasetDict(splits)}.__getitem__)
        path, test = "owner/name", "owner/name:test"
    assert f"1 of 1 rows in {test} has no label (row 1)" in refused(path)
    splits["test"] = rows.select([1]).map(lambda row: {"text": "new"}, features=features)
    if source == "parquet":
        splits["test"].to_parquet(tmp_path / test)
    else:
        monkeypatch.setattr(datasets, "load_dataset", {"owner/name": datasets.DatasetDict(splits)}.__getitem__)
    found, _ = loaded(path)
    assert found.facts["labels"] == ["no", "yes"]
    assert [row["label"] for row in found.splits["test"]] == ["yes"]
    assert any("unsupervised" in name for name in found.facts["ignored"])


def chat(i: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"ask {i}", "name": "x"}, {"role": "assistant", "content": f"answer {i}"}]}


def test_messages(folder: Folder, loaded: Any) -> None:
    path = folder(**{"rows.jsonl": "".join(json.dumps(chat(i)) + "\n" for i in range(30))}) / "rows.jsonl"
    found, _ = loaded(path, "text-generation")
    assert found.facts["columns"] == {"messages": "messages"}
    row = found.splits["train"][0]
    assert row["messages"] == [
        {"role": "user", "content": f"ask {row['row'] - 1}"},
        {"role": "assistant", "content": f"answer {row['row'] - 1}"},
    ]
    assert found.facts["labels"] == []
    assert found.facts["rows"] == {"train": 24, "validation": 3, "test": 3}


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "no messages"),
        ("hello", "no messages"),
        (None, "no messages"),
        ([{"role": "user", "content": "a"}], "no answer of the assistant at the end"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}], "no answer of the assistant at the end"),
        ([{"role": "assistant", "content": "a"}], "no message before the assistant's answer"),
        ([{"role": "user"}, {"role": "assistant", "content": "a"}], "a message without role or content"),
        (
            [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}],
            "a message whose role is none of system, user, assistant, tool",
        ),
    ],
)
def test_messages_that_cannot_be_learned_from(folder: Folder, refused: Any, messages: Any, reason: str) -> None:
    lines = [json.dumps(chat(0)), json.dumps({"messages": messages})]
    said = refused(folder(**{"rows.jsonl": "\n".join(lines)}) / "rows.jsonl", "text-generation")
    assert said.startswith(f"1 of 2 rows in rows.jsonl has {reason} (row 2)")


def test_messages_beside_a_completion_are_ambiguous(folder: Folder, refused: Any, loaded: Any) -> None:
    rows = [chat(i) | {"prompt": f"p {i}", "completion": f"c {i}"} for i in range(30)]
    path = folder(**{"rows.json": json.dumps(rows)}) / "rows.json"
    assert 'both chat "messages" and a completion' in refused(path, "text-generation")
    found, _ = loaded(path, "text-generation", **{"data.prompt": "prompt"})
    assert MESSAGES not in found.splits["train"][0]


def test_prompt_and_completion(folder: Folder, loaded: Any, refused: Any) -> None:
    path = (
        folder(**{"rows.csv": table("instruction", "output", rows=0) + "\n" + "".join(f"do {i},done {i}\n" for i in range(30))})
        / "rows.csv"
    )
    found, _ = loaded(path, "text-generation")
    assert found.facts["columns"] == {"prompt": "instruction", "completion": "output"}
    rows = "".join(f"do {i},{'with this' if i % 2 else ''},done {i}\n" for i in range(30))
    found, _ = loaded(folder(**{"alpaca.csv": "instruction,input,output\n" + rows}) / "alpaca.csv", "text-generation")
    assert found.facts["columns"] == {"instruction": "instruction", "input": "input", "completion": "output"}
    asked = {row["prompt"] for part in found.splits.values() for row in part}
    assert asked == {f"do {i}\n\nwith this" if i % 2 else f"do {i}" for i in range(30)}
    said = refused(folder(**{"both.csv": "question,input,output\na,b,c\n"}) / "both.csv", "text-generation")
    assert "prompt: more than one column could be it: question, input" in said


def test_key_ignores_case_and_whitespace() -> None:
    assert key({"text": " Stra\u00dfe\n 5 "}) == key({"text": "STRASSE 5"}) == "strasse 5"
