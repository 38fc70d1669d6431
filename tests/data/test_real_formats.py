"""Published data sets of every kind, as their authors wrote the files: each row is read, and the counts are the published ones."""

from __future__ import annotations

import gzip
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune import tasks
from edgetune.data import spans

Real = Callable[[str], Path]
COLUMNS = {
    "probe-tokens": ("text", "tags"),
    "probe-slots": ("text", "tags", "intent"),
    "probe-score": ("text", "text_pair", "score"),
    "probe-answers": ("question", "context", "answers"),
    "probe-parallel": ("source", "target"),
    "probe-plain": ("text",),
    "relation-extraction": ("text", "label"),
}


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, columns in COLUMNS.items():
        task = tasks.Task(
            name=name,
            title="",
            family="encoder",
            auto_class="",
            columns={column: (column,) for column in columns},
            metric="",
            higher_is_better=True,
            example="{}",
        )
        monkeypatch.setitem(tasks.TASKS, name, task)
        monkeypatch.setitem(sys.modules, f"edgetune.tasks.{name.replace('-', '_')}", types.ModuleType(name))


def by_row(found: Any) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["file"], row["row"]): row for part in found.splits.values() for row in part}


def counted(found: Any) -> list[int]:
    """Rows of each file; each is used or reported."""
    assert sum(found.facts["rows"].values()) + len(found.facts["dropped"]) == found.facts["read"]
    return [file["rows"] for file in found.facts["files"]]


def test_wnut17(real: Real, loaded: Any) -> None:
    path = real("wnut17")
    names = ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    found, _ = loaded(path / names[0], "probe-tokens", **{"data.validation": str(path / names[1]), "data.test": str(path / names[2])})
    assert counted(found) == [3_394, 1_009, 1_287]
    assert sum(found.facts["entity_counts"]["validation"].values()) == 836
    assert sum(found.facts["entity_counts"]["test"].values()) == 1_079
    assert found.facts["duplicates"]["train"] == 103
    assert found.facts["conflicts"]["texts"] == 11
    rows = by_row(found)
    for name in names:
        blocks = [(m.start(), m[0]) for m in re.finditer(r"(?:[^\n]*\S[^\n]*\n?)+", (path / name).read_bytes().decode())]
        text = (path / name).read_bytes().decode()
        for at, block in blocks:
            row = rows.get((name, text.count("\n", 0, at) + 1))
            if row is not None:  # else a duplicate
                pairs = [tuple(line.split("\t")) for line in block.rstrip("\n").split("\n")]
                places = [row["text"][start:end] for start, end in row["words"]]
                assert list(zip(places, row["tags"], strict=True)) == pairs
        assert len(blocks) == sum(key[0] == name for key in rows) + sum(one["file"] == name for one in found.facts["dropped"])


def test_snips(real: Real, loaded: Any, refused: Any, tmp_path: Path) -> None:
    sources = {}
    for split, pattern in (("train", "*/train_*_full.json"), ("test", "*/validate_*.json")):
        for i, source in enumerate(sorted(real("snips").glob(pattern))):
            sources[f"{split}-{i}-of-7.json"] = source
            (tmp_path / f"{split}-{i}-of-7.json").symlink_to(source)
    said = refused(tmp_path, "probe-slots")
    assert said.startswith("3 of 14,484 rows cannot be used\n") and "a span that cuts a word" in said
    found, notes = loaded(tmp_path, "probe-slots", **{"data.on_bad_row": "drop"})
    assert sum(counted(found)[:7]) == 13_784 and counted(found)[7:] == [100] * 7
    assert "is CESU-8, not UTF-8: 1 character beyond U+FFFF in two halves" in notes
    assert (
        "6 rows had blanks" not in notes
        and "3 rows had blanks at the ends of a span, which were cut off (rows 1,243, 1,836, 1,978)" in notes
    )
    assert len(found.facts["label_counts"]["train"]) == 7
    assert len(found.facts["entity_counts"]["train"]) == 39
    rows = by_row(found)
    for name, source in sources.items():
        ((intent, written),) = json.loads(source.read_bytes().decode("utf-8", "surrogatepass")).items()
        for i, one in enumerate(written, 1):
            row = rows.get((name, i))
            if row is not None:
                text = "".join(piece["text"] for piece in one["data"]).encode("utf-16", "surrogatepass").decode("utf-16")
                assert (row["text"], row["intent"]) == (text, intent)
                slots = [(piece["text"].strip(), piece["entity"]) for piece in one["data"] if "entity" in piece]
                read = [(row["text"][start:end], kind) for start, end, kind in spans.spans(row["words"], row["tags"])]
                assert [kind for _, kind in read] == [kind for _, kind in slots]
                assert all("\ud83c" in a or a == b for (a, _), (b, _) in zip(slots, read, strict=True))


def test_stsb(real: Real, loaded: Any) -> None:
    path = real("stsb")
    others = {f"data.{split}": str(path / f"stsb-en-{name}.csv") for split, name in (("validation", "dev"), ("test", "test"))}
    found, _ = loaded(path / "stsb-en-train.csv", "probe-score", **others, **{"data.header": "text,text_pair,score"})
    assert counted(found) == [5_749, 1_500, 1_379]
    assert found.facts["duplicates"]["train"] == 44
    assert (found.facts["overlap"]["train_validation"], found.facts["overlap"]["train_test"]) == (6, 7)
    assert found.facts["scores"]["test"]["max"] == 5.0


def test_semeval2010_task8(real: Real, loaded: Any) -> None:
    path = real("semeval2010_task8")
    found, notes = loaded(path / "train.tsv", "relation-extraction", **{"data.test": str(path / "test.tsv"), "data.header": "label,text"})
    assert counted(found) == [8_000, 2_717]
    assert not found.facts["dropped"]
    assert found.facts["labels"] == sorted((path / "label.txt").read_text("utf-8").split())
    assert found.facts["label_counts"]["train"]["Entity-Destination(e2,e1)"] == 1  # the only one stays in train
    assert "quotes are read as characters" in notes
    rows = by_row(found)
    for name in ("train.tsv", "test.tsv"):
        for number, line in enumerate((path / name).read_text("utf-8").splitlines(), 1):
            label, text = line.split("\t")
            row = rows[name, number]
            assert row["label"] == label
            assert "".join(row["text"].split()) == "".join(text.split())


@pytest.mark.parametrize("language", ["en", "zh"])
def test_xquad(real: Real, loaded: Any, language: str) -> None:
    found, _ = loaded(real("xquad") / f"xquad.{language}.json", "probe-answers")
    assert counted(found) == [1_190]
    assert not found.facts["mended"]
    titles = {split: {row["group"] for row in part} for split, part in found.splits.items()}
    assert sum(map(len, titles.values())) == len(set().union(*titles.values())) == 48
    assert all(row["context"][start : start + len(text)] == text for row in by_row(found).values() for start, text in row["answers"])


def test_multi30k(real: Real, loaded: Any, refused: Any) -> None:
    path = real("multi30k")
    others = {"data.validation": str(path / "val"), "data.test": str(path / "test_2016_flickr")}
    found, _ = loaded(path / "train", "probe-parallel", **others, **{"data.source": "en", "data.target": "de"})
    assert counted(found) == [29_000, 1_014, 1_000]
    sides = [gzip.decompress((path / f"train.{language}.gz").read_bytes()).decode().rstrip("\n").split("\n") for language in ("en", "de")]
    assert all((row["source"], row["target"]) == (sides[0][row["row"] - 1], sides[1][row["row"] - 1]) for row in found.splits["train"])
    assert "4 files for the test split" in refused(path, "probe-parallel")


def test_nl2bash_side_by_side(real: Real, loaded: Any) -> None:
    found, _ = loaded(real("nl2bash") / "all", "text-generation")
    assert counted(found) == [12_607]
    assert found.facts["columns"] == {"prompt": "nl", "completion": "cm"}


def test_wikitext2(real: Real, loaded: Any) -> None:
    path = real("wikitext2")
    found, _ = loaded(path / "valid.txt", "probe-plain", **{"data.test": str(path / "test.txt")})
    texts = [(path / name).read_text("utf-8").split("\n") for name in ("valid.txt", "test.txt")]
    assert counted(found) == [sum(bool(line.strip()) for line in lines) for lines in texts]


def test_mts_dialog(real: Real, loaded: Any) -> None:
    path = real("mts_dialog")
    columns = {"data.source": "dialogue", "data.target": "section_text"}
    test = {"data.test": str(path / "MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv")}
    valid = {"data.validation": str(path / "MTS-Dialog-ValidationSet.csv")}
    found, _ = loaded(path / "MTS-Dialog-TrainingSet.csv", "probe-parallel", **columns, **valid, **test)
    assert counted(found) == [1_201, 100, 200]
