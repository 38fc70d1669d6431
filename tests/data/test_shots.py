"""data.shots: so many rows of each label, drawn from train alone, and said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import pipeline
from edgetune.errors import DataError


def write(folder: Path, counts: dict[str, int], name: str = "rows.csv") -> Path:
    return tiny.table(folder / name, [(f"{label} {i}", label) for label, count in counts.items() for i in range(count)])


def test_rows_are_drawn_from_train_by_the_seed(tmp_path: Path, loaded: Callable[..., Any]) -> None:
    path = write(tmp_path, {"a": 100, "b": 40, "oos": 30})
    every, _ = loaded(path)
    few, notes = loaded(path, **{"data.shots": 4})
    assert Counter(row["label"] for row in few.splits["train"]) == {"a": 4, "b": 4, "oos": 4} == few.facts["label_counts"]["train"]
    assert few.splits["validation"] == every.splits["validation"] and few.splits["test"] == every.splits["test"]
    train = every.splits["train"]
    assert [row for row in train if row in few.splits["train"]] == few.splits["train"], "rows of train, in its order"
    assert few.facts["not_drawn"] == len(train) - 12 and every.facts["not_drawn"] == 0
    assert few.facts["rows"]["train"] == 12
    assert sum(few.facts["rows"].values()) + few.facts["not_drawn"] + len(few.facts["dropped"]) == few.facts["read"]
    assert f"data.shots = 4: 12 of {len(train)} train rows are drawn, 4 of each label (seed 0)" in notes
    assert loaded(path, **{"data.shots": 4})[0].splits == few.splits
    assert loaded(path, **{"data.shots": 4, "seed": 1})[0].splits["train"] != few.splits["train"]


def test_fewer_rows_than_shots(tmp_path: Path, refused: Callable[..., str]) -> None:
    said = refused(write(tmp_path, {"a": 100, "b": 12, "c": 5}), **{"data.shots": 11})
    assert "data.shots = 11, but 2 of 3 labels have fewer rows in train" in said
    assert '"c" has ' in said and '"b" has ' in said and '"a"' not in said
    assert "validation and test rows were cut from train before" in said
    fewest = int(said.split('"c" has ')[1].split()[0])
    assert f"--shots {fewest}" in said
    for split in ("train", "validation", "test"):
        write(tmp_path / "own", {f"{split} {label}": 3 for label in "ab"}, f"{split}.csv")
    own = tiny.table(tmp_path / "own" / "train.csv", [(f"text {i}", "ab"[i % 2]) for i in range(6)]).parent
    for split in ("validation", "test"):
        tiny.table(own / f"{split}.csv", [(f"{split} {i}", "ab"[i % 2]) for i in range(6)])
    said = refused(own, **{"data.shots": 4})
    assert '"a" has 3' in said and "were cut" not in said


@pytest.mark.parametrize(
    ("counts", "keys", "said", "mend"),
    [
        ({"a": 40, "b": 40, "c": 1}, {}, "needs 2 rows of each label in train, but 1 of 3 labels have fewer", "--method full"),
        ({"a": 40, "b": 40}, {"data__shots": 1}, "needs 2 rows of each label in train, but 2 of 2 labels have fewer", "--method full"),
        ({"a": 40, "b": 40}, {"data__shots": 50}, "data.shots = 50, but 2 of 2 labels have fewer", "--shots 32"),
    ],
)
def test_what_few_shot_cannot_learn_from_leaves_nothing_behind(
    tmp_path: Path, counts: dict[str, int], keys: dict[str, Any], said: str, mend: str
) -> None:
    tiny.bert(tmp_path / "model")
    write(tmp_path, counts, "data.csv")
    with pytest.raises(DataError) as raised:
        pipeline.run(tiny.recipe(tmp_path, method="few-shot", **keys), "adapt")
    assert said in str(raised.value) and mend in (raised.value.mend or "")
    assert raised.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_row_out_of_scope_may_be_alone(tmp_path: Path) -> None:
    """It makes no pair, and no label."""
    tiny.bert(tmp_path / "model")
    write(tmp_path, {"a": 40, "b": 40, "oos": 1}, "data.csv")
    assert pipeline.run(tiny.recipe(tmp_path, method="few-shot", adapt__max_steps=2), "adapt")
