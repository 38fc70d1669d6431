"""What holds for any data: what a standard writer wrote is read back, no row is lost, splits share no text."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetune import data
from edgetune.data.columns import key
from edgetune.data.read import read
from edgetune.errors import DataError
from edgetune.recipe import Recipe, load

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, max_size=30)
rows_of_text = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    names = ("text", "label")
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, "excel" if path.suffix == ".csv" else "excel-tab").writerows([names, *rows])
    elif path.suffix == ".jsonl":
        path.write_bytes("".join(json.dumps(row, ensure_ascii=len(rows) % 2 == 0) + "\n" for row in objects).encode())
    elif path.suffix == ".json":
        path.write_bytes(json.dumps({"data": objects} if len(rows) % 2 else objects).encode())
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(objects), path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
@quick
@given(rows=rows_of_text)
def test_a_file_is_read_as_it_was_written(tmp_path: Path, suffix: str, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / f"rows{suffix}"
    write(path, rows)
    table = read(path)
    assert table.columns == ("text", "label")
    assert not table.bad
    assert [(row["text"], row["label"]) for _, row in table.rows] == rows
    assert [number for number, _ in table.rows] == sorted({number for number, _ in table.rows})


@quick
@given(rows=rows_of_text)
def test_a_csv_row_number_is_the_line_on_which_the_row_starts(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    rows = [(text.replace("\r", "\n"), label.replace("\r", "\n")) for text, label in rows]
    path = tmp_path / "rows.csv"
    write(path, rows)
    expected = 2
    for (number, row), written in zip(read(path).rows, rows, strict=True):
        assert number == expected
        assert (row["text"], row["label"]) == written
        expected += 1 + "".join(written).count("\n")


few = st.sampled_from(["", " ", "a", "A", " a ", "b", "c d", "c  D", "e\nf", "g", "h", "i", "j", "k", "l"])
labelled = st.lists(st.tuples(few, st.sampled_from(["x", "y", "z", "oos", ""])), min_size=1, max_size=40)


def loaded_or_refused(recipe: Recipe) -> data.Loaded | None:
    try:
        return data.load(recipe)
    except DataError:
        return None


def recipe_for(path: Path, task: str = "text-classification", seed: int = 0) -> Recipe:
    return load(None, {"task": task, "data.path": str(path), "data.on_bad_row": "drop", "seed": seed})


def places(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(row["file"], row["row"]) for row in rows]


@pytest.mark.parametrize(
    "names", [("all.csv",), ("train.csv", "test.csv"), ("train.csv", "dev.csv", "test.csv"), ("train.csv", "validation.csv")]
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(labelled, min_size=3, max_size=3), seed=st.integers(0, 3))
def test_every_row_is_used_or_reported_once(tmp_path: Path, names: tuple[str, ...], parts: list[Any], seed: int) -> None:
    files = dict(zip(names, parts, strict=False))
    for name, rows in files.items():
        write(tmp_path / name, rows)
    path = tmp_path / names[0] if len(names) == 1 else tmp_path
    found = loaded_or_refused(recipe_for(path, seed=seed))
    if found is None:
        return
    used = [place for rows in found.splits.values() for place in places(rows)]
    reported = places(found.facts["dropped"])
    read_back = [(name, number) for name in files for number, _ in read(tmp_path / name).rows]
    assert sorted(used + reported) == sorted(read_back)
    assert found.facts["read"] == len(read_back)

    written = {(name, number): (row["text"], row["label"]) for name in files for number, row in read(tmp_path / name).rows}
    for rows in found.splits.values():
        assert rows
        for row in rows:
            assert (row["text"], row["label"]) == written[row["file"], row["row"]]

    keys = {split: {key(row) for row in rows} for split, rows in found.splits.items()}
    assert not keys["train"] & (keys["validation"] | keys["test"])
    if found.facts["cut"]:
        assert not keys["validation"] & keys["test"]
    classes = {row["label"] for row in found.splits["train"]} - {"oos"}
    assert found.facts["labels"] == sorted(classes)
    assert {row["label"] for split in ("validation", "test") for row in found.splits[split]} <= classes | {"oos"}
    trained = [(key(row), row["label"]) for row in found.splits["train"]]
    assert len(trained) == len(set(trained))
    assert data.load(recipe_for(path, seed=seed)) == found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(1, 45), min_size=2, max_size=6), seed=st.integers(0, 5))
def test_cut_splits_are_stratified(tmp_path: Path, counts: list[int], seed: int) -> None:
    rows = [(f"text {label} {i}", f"label {label}") for label, count in enumerate(counts) for i in range(count)]
    write(tmp_path / "all.csv", rows)
    found = loaded_or_refused(recipe_for(tmp_path / "all.csv", seed=seed))
    if found is None:
        assert max(counts) <= 2  # nothing to cut, or only once
        return
    by_split = {split: Counter(row["label"] for row in part) for split, part in found.splits.items()}
    for label, count in enumerate(counts):
        name = f"label {label}"
        assert by_split["train"][name] >= 1
        if count > 1:
            for split in ("validation", "test"):
                assert abs(by_split[split][name] - count / 10) < 1.25
    assert sum(by_split["train"].values()) + sum(by_split["validation"].values()) + sum(by_split["test"].values()) == sum(counts)


def test_the_seed_decides_the_cut(tmp_path: Path) -> None:
    write(tmp_path / "all.csv", [(f"text {i}", "ab"[i % 2]) for i in range(200)])
    cuts = [places(data.load(recipe_for(tmp_path / "all.csv", seed=seed)).splits["test"]) for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2]
    assert len(cuts[0]) == 20
