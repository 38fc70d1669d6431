"""Splits, duplicates, leaks and out-of-scope labels; and the real data."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune import data
from edgetune.data.columns import key
from edgetune.data.find import split_of

Folder = Callable[..., Path]
CHECKOUT = Path(__file__).parents[2]


def rows(*pairs: tuple[str, str], filler: int = 40) -> str:
    """A CSV of `pairs` (from line 2), then `filler` rows of the labels odd and even."""
    lines = [*pairs, *((f"filler {i}", "odd" if i % 2 else "even") for i in range(filler))]
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in lines)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("Train.CSV", "train"),
        ("training.jsonl", "train"),
        ("train-00000-of-00002.parquet", "train"),
        ("val.csv", "validation"),
        ("valid.csv", "validation"),
        ("validation_matched.json", "validation"),
        ("dev.tsv", "validation"),
        ("test2.csv", "test"),
        ("testimonials.csv", None),
        ("trainers.csv", None),
        ("values.csv", None),
        ("devices.csv", None),
        ("categories.json", None),
        ("my_train.csv", None),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_a_folder_names_what_it_ignores(folder: Folder, loaded: Any) -> None:
    path = folder(
        **{"train.csv": rows(), "dev.csv": rows(("a b", "odd"), filler=0), "LICENSE": "x", "categories.json": "[]", ".hidden": ""}
    )
    (path / "more").mkdir()
    found, notes = loaded(path)
    assert found.facts["ignored"] == ["LICENSE", "categories.json", "more/"]
    assert "LICENSE, categories.json, more/" in notes
    assert found.facts["files"] == [
        {"file": "train.csv", "split": "train", "rows": 40},
        {"file": "dev.csv", "split": "validation", "rows": 1},
    ]
    assert found.facts["cut"] == {"test": "train"}
    assert found.facts["rows"] == {"train": 36, "validation": 1, "test": 4}


def test_shards_are_put_together(folder: Folder, loaded: Any) -> None:
    found, _ = loaded(
        folder(**{"train-00000-of-00002.csv": rows(), "train-00001-of-00002.csv": rows(("filler 1", "odd"), ("new", "odd"), filler=0)})
    )
    assert found.facts["read"] == 42
    assert found.facts["dropped"] == [
        {"file": "train-00001-of-00002.csv", "row": 2, "reason": "the same as row 3 of train-00000-of-00002.csv"}
    ]


def test_leaks_leave_train_and_never_test(folder: Folder, loaded: Any) -> None:
    path = folder(
        **{
            "train.csv": rows(("Hello  There", "odd"), ("stay", "odd"), ("shared", "even")),
            "validation.csv": rows(("hello there", "odd"), ("shared", "even"), ("both", "odd"), filler=0),
            "test.csv": rows(("hello there", "odd"), ("fresh", "even"), ("BOTH", "odd"), filler=0),
        }
    )
    found, notes = loaded(path)
    assert found.facts["overlap"] == {"train_test": 1, "train_validation": 2, "validation_test": 2}
    assert [row.get("overlap") for row in found.splits["test"]] == [True, None, None]
    assert found.facts["rows"] == {"train": 41, "validation": 3, "test": 3}
    assert found.facts["dropped"] == [
        {"file": "train.csv", "row": 2, "reason": "also in test"},
        {"file": "train.csv", "row": 4, "reason": "also in validation"},
    ]
    assert "rows that also occur in train: 2 of validation, 1 of test; 2 rows left train" in notes
    assert "rows of test that also occur in validation: 2" in notes


def test_train_that_is_all_in_test(folder: Folder, refused: Any) -> None:
    assert "no row is left in train" in refused(folder(**{"train.csv": rows(), "test.csv": rows()}))


def test_duplicates_are_kept_once_and_conflicts_kept(folder: Folder, loaded: Any) -> None:
    pairs = [("turn it on", "odd"), ("Turn it  ON", "odd"), ("maybe", "odd"), ("maybe", "even"), ("maybe", "odd")]
    found, notes = loaded(folder(**{"all.csv": rows(*pairs)}) / "all.csv")
    assert found.facts["duplicates"] == {"train": 3}
    assert found.facts["dropped"] == [
        {"file": "all.csv", "row": 3, "reason": "the same as row 2"},
        {"file": "all.csv", "row": 6, "reason": "the same as row 4"},
    ]
    assert found.facts["conflicts"] == {"texts": 1, "rows": [{"file": "all.csv", "row": 4}, {"file": "all.csv", "row": 5}]}
    assert "2 duplicate rows in train kept once" in notes
    assert "1 text in train has more than one label (rows 4, 5); all are kept" in notes
    assert [row["row"] for row in found.splits["train"] if row["text"] == "maybe"] == [4, 5]


def test_labels_of_one_row_stay_in_train_and_are_said(folder: Folder, loaded: Any) -> None:
    found, notes = loaded(folder(**{"all.csv": rows(("a b", "rare"))}) / "all.csv")
    assert [row["label"] for row in found.splits["train"]].count("rare") == 1
    assert "validation has no row of 1 of 3 labels, which have too few: rare" in notes


def test_out_of_scope_is_found_and_said(folder: Folder, loaded: Any) -> None:
    path = folder(**{"train.csv": rows(("what", "OOS")), "test.csv": rows(("a b", "odd"), ("so", "OOS"), filler=0)})
    found, notes = loaded(path)
    assert found.facts["out_of_scope"] == "OOS"
    assert found.facts["labels"] == ["even", "odd"]
    assert found.splits["test"][1]["label"] == "OOS"
    assert found.facts["label_counts"]["test"] == {"OOS": 1, "odd": 1}
    assert 'rows labelled "OOS" belong to no class' in notes


def test_out_of_scope_by_name(folder: Folder, loaded: Any, refused: Any) -> None:
    path = folder(**{"train.csv": rows(("a b", "none"), ("c d", "oos")), "test.csv": rows(("what", "none"), filler=0)})
    found, _ = loaded(path, **{"data.out_of_scope": "none"})
    assert found.facts["out_of_scope"] == "none"
    assert found.facts["labels"] == ["even", "odd", "oos"]
    assert 'no row has the out-of-scope label "non" (did you mean "none"?)' in refused(path, **{"data.out_of_scope": "non"})


def test_out_of_scope_rows_need_none_in_train(folder: Folder, loaded: Any) -> None:
    found, _ = loaded(folder(**{"train.csv": rows(), "test.csv": rows(("what", "oos"), filler=0)}))
    assert found.facts["rows"]["test"] == 1


def test_two_out_of_scope_labels(folder: Folder, refused: Any) -> None:
    said = refused(folder(**{"all.csv": rows(("a", "oos"), ("b", "out_of_scope"))}) / "all.csv")
    assert "more than one label could mean out of scope: oos, out_of_scope" in said


def test_prompts_with_several_answers_stay_together(folder: Folder, loaded: Any) -> None:
    lines = [json.dumps({"prompt": f"Ask {i // 3}", "completion": f"say {i}"}) for i in range(300)]
    found, notes = loaded(folder(**{"all.jsonl": "\n".join([*lines, lines[0]])}) / "all.jsonl", "text-generation")
    assert found.facts["rows"] == {"train": 240, "validation": 30, "test": 30}
    assert found.facts["conflicts"]["texts"] == 100
    assert "100 prompts in train have more than one completion" in notes
    assert [entry["row"] for entry in found.facts["dropped"]] == [301]


def test_facts_are_json_and_hold_no_text(folder: Folder, loaded: Any) -> None:
    found, notes = loaded(
        folder(**{"all.csv": rows(("secret words", "odd"), ("secret words", "odd"), ("secret words", "even"))}) / "all.csv"
    )
    assert json.loads(json.dumps(found.facts)) == found.facts
    assert "secret" not in json.dumps(found.facts) + notes
    assert found.facts["characters"]["train"]["text"]["max"] == len("secret words")


def test_digests_follow_the_files(folder: Folder, recipe: Any) -> None:
    path = folder(**{"train.csv": rows(), "LICENSE": "x"})
    before = data.digests(recipe(path).data)
    assert list(before) == [str(path / "train.csv")]
    folder(**{"LICENSE": "y"})
    assert data.digests(recipe(path).data) == before
    folder(**{"train.csv": rows(("a b", "odd"))})
    assert data.digests(recipe(path).data) != before


def test_banking77(real: Any, loaded: Any) -> None:
    path = real("banking77")
    found, notes = loaded(path)
    facts = found.facts
    assert facts["columns"] == {"text": "text", "label": "category"}
    assert facts["files"] == [{"file": "train.csv", "split": "train", "rows": 10_003}, {"file": "test.csv", "split": "test", "rows": 3_080}]
    assert facts["ignored"] == ["LICENSE", "SOURCE.txt", "categories.json"]
    assert facts["labels"] == sorted(json.loads((path / "categories.json").read_text("utf-8")))
    assert facts["duplicates"] == {"train": 4, "test": 1}
    assert facts["overlap"] == {"train_test": 7}
    assert facts["conflicts"]["texts"] == 0
    assert len(facts["dropped"]) == 11
    assert facts["cut"] == {"validation": "train"}
    assert facts["rows"]["test"] == 3_080
    assert facts["rows"]["train"] + facts["rows"]["validation"] == 10_003 - 11
    assert abs(facts["rows"]["validation"] - 999) <= 1
    assert sum(row.get("overlap", False) for row in found.splits["test"]) == 7
    assert set(facts["label_counts"]["validation"]) == set(facts["labels"])
    assert "rows that also occur in train: 7 of test; 7 rows left train" in notes
    with (path / "test.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["text"], row["label"]) for row in found.splits["test"]] == [
            (row["text"], row["category"]) for row in csv.DictReader(file)
        ]


def test_nl2bash_example(real: Any, loaded: Any, tmp_path: Path) -> None:
    source = real("nl2bash")
    script = CHECKOUT / "examples" / "nl2bash" / "prepare.py"
    command = [sys.executable, script, source / "all.nl", source / "all.cm", tmp_path]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    subprocess.run(command, capture_output=True, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first

    parts = {name: [json.loads(line) for line in content.decode().split("\n") if line] for name, content in first.items()}
    assert set(parts) == {"train.jsonl", "validation.jsonl", "test.jsonl"}
    commands = {name: {" ".join(row["completion"].split()) for row in part} for name, part in parts.items()}
    assert not commands["train.jsonl"] & (commands["validation.jsonl"] | commands["test.jsonl"])
    assert not commands["validation.jsonl"] & commands["test.jsonl"]
    pairs = sorted((row["prompt"], row["completion"]) for part in parts.values() for row in part)
    descriptions = [" ".join(line.split()) for line in (source / "all.nl").read_text("utf-8").split("\n")]
    originals = [line.strip() for line in (source / "all.cm").read_text("utf-8").split("\n")]
    assert pairs == sorted((d, c) for d, c in zip(descriptions, originals, strict=True) if c)
    for name, part in parts.items():
        assert f"{name.removesuffix('.jsonl')}: {len(part):,} pairs" in printed
        assert len(part) > 1_200

    found, _ = loaded(tmp_path, "text-generation")
    assert found.facts["overlap"] == {"train_test": 0, "train_validation": 0, "validation_test": 0}
    assert not {key(row) for row in found.splits["train"]} & {key(row) for row in found.splits["test"]}
