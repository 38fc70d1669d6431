"""prepare: the user's data -> train.jsonl, validation.jsonl and test.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgetune import data, methods, progress
from edgetune.data import descriptions, other_tests
from edgetune.data.columns import key
from edgetune.data.earlier import MARK
from edgetune.errors import DataError, GateError
from edgetune.methods import PATTERNS, continual
from edgetune.recipe import Recipe


def prepare(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write the three splits of `recipe.data` into `out` and return the facts of `edgetune.data.load`.

    Raises DataError for data (or other test sets) that cannot be used, or not by the method, and GateError when a row would be lost or a cut split would share a text
    with another: that is checked on what was written.
    """
    loaded = data.load(recipe, continual.rows(recipe))
    _enough(recipe, loaded.facts)
    _meant(recipe, loaded.facts)
    with progress.silent():  # they are read, and told, when there is a model; what cannot be used is refused now
        other_tests.load(recipe, loaded.facts, loaded.splits["train"])
    for split, rows in loaded.splits.items():
        with (out / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    _prove(loaded.facts, out)
    return loaded.facts


def _enough(recipe: Recipe, facts: dict[str, Any]) -> None:
    """Raises DataError where a label has fewer rows in train than the method learns from."""
    method = methods.METHODS.get(recipe.method)  # none: trained elsewhere
    counts = facts["label_counts"].get("train", {})
    if method and (short := {label: n for label, n in counts.items() if n < method.least_rows and label != facts["out_of_scope"]}):
        first = ", ".join(f'"{label[:60]}"' for label in list(short)[:5]) + (f" and {len(short) - 5} more" if len(short) > 5 else "")
        raise DataError(
            f"method {method.name} needs {method.least_rows} rows of each label in train, but {len(short)} of {len(counts)} labels have fewer",
            details=[f"too few: {first}", *(["validation and test rows were cut from train before"] if facts["cut"] else [])],
            mend="give more rows of these labels, or --method full",
        )


def _meant(recipe: Recipe, facts: dict[str, Any]) -> None:
    """Raises DataError for descriptions that are not of the labels, and where there are pairs, which no description is like."""
    if recipe.method in ("zero-shot", *PATTERNS) and "text_pair" in facts["columns"]:
        raise DataError(f"{recipe.method} asks what one text means, and these rows are pairs of texts", mend="--method full")
    if recipe.data.descriptions:
        with progress.silent():  # adapt says it
            descriptions.rows(recipe, facts["labels"])


def _prove(facts: dict[str, Any], folder: Path) -> None:
    written = {split: data.rows(folder, split) for split in data.SPLITS}
    used = sum(map(len, written.values())) - sum(facts["earlier"]["rows"].values() if "earlier" in facts else ())
    reported = len(facts["dropped"]) + facts["not_drawn"]
    if used + reported != facts["read"]:
        raise GateError(f"{facts['read']:,} rows were read, but {used:,} are used and {reported:,} reported")
    texts = {split: {key(row) for row in rows} for split, rows in written.items()}
    own = {split: [row for row in rows if MARK not in row] for split, rows in written.items()}  # an earlier run's were proved by it
    groups = {split: {row["group"] for row in rows if "group" in row} for split, rows in own.items()}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        supplied = (first, second) == ("validation", "test") and not facts["cut"]
        shared = len(({key(row) for row in own[first]} & texts[second]) | (texts[first] & {key(row) for row in own[second]}))
        if shared and not supplied:
            raise GateError(f"{first} and {second} share {shared:,} texts")
        if second in facts["cut"] and first in ("train", *facts["cut"]) and (shared := len(groups[first] & groups[second])):
            raise GateError(f"{first} and {second} share {shared:,} groups ({facts['group']})")
