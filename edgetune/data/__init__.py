"""A user's data -> checked rows in the task's own columns, every row of which is used or reported."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune import progress, tasks
from edgetune.data import check, columns, find, split
from edgetune.data.find import SPLITS, digests
from edgetune.data.read import Bad
from edgetune.errors import DataError, RunError
from edgetune.recipe import Recipe

__all__ = ["SPLITS", "Loaded", "digests", "load", "rows"]


@dataclass(frozen=True)
class Loaded:
    """Rows by split (`train`, `validation`, `test`), and what was found out about them.

    A row has the task's columns (`text`, `label`; or `prompt`, `completion`; or `messages`: [{role, content}, ...]), its `row` number
    (see `edgetune.data.read`) and its `file`; a test row whose text was in train too has `overlap: true`.
    """

    splits: dict[str, list[dict[str, Any]]]
    facts: dict[str, Any]


def load(recipe: Recipe) -> Loaded:
    """Read, check and split `recipe.data`. Raises DataError, with all problems of a kind together, for what cannot be used.

    `facts` are JSON values and hold no text of the rows:
      task, columns {column: name in the file}, columns_given [those that the recipe named], files [{file, split, rows}], ignored [names],
      read (rows), rows {split: n}, dropped [{file, row, reason}]: read = sum of rows + length of dropped,
      labels (sorted, without out_of_scope), out_of_scope (label or None), label_counts {split: {label: n}},
      duplicates {split: n} (rows whose text an earlier row has; in train those with the same answer were dropped),
      conflicts {texts, rows [{file, row}]} (texts with several answers in train), overlap {"train_test": rows of test that were in
      train, ...}, cut {split: "train"} for splits that were missing, characters {split: {column: {min, median, p95, max}}}.
    """
    task = tasks.get(recipe.task)
    labelled = "label" in task.columns
    found, ignored = find.tables(recipe.data)
    tables = [table for group in found.values() for table in group]
    totals = {table.file: table.read for table in tables}
    bad = [one for table in tables for one in table.bad]
    if not all(table.rows for table in tables):
        raise check.refuse(bad, totals, task, None)

    named = columns.find(task, recipe, tables)
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
    for name, group in found.items():
        for table in group:
            good, lacking = columns.rows(table, named)
            splits[name] += good
            bad += lacking
    if not all(splits.values()):
        raise check.refuse(bad, totals, task, named)

    scope = check.out_of_scope(recipe.data.out_of_scope, splits) if labelled else None
    duplicates = {name: check.repeats(part) for name, part in splits.items()}
    overlap, leaked = check.separate(splits)
    splits["train"], repeated, conflicts = check.deduplicate(splits["train"], "label" if labelled else "completion")
    if labelled:
        bad += check.unseen(splits, scope)
    if bad and recipe.data.on_bad_row == "error":
        raise check.refuse(bad, totals, task, named)
    _drop(splits, bad)
    labels = check.classes(splits["train"], scope) if labelled else []
    made = split.complete(splits, recipe.seed)

    dropped = check.in_order(bad + leaked + repeated, totals)
    splits = {name: splits[name] for name in SPLITS}
    facts = {
        "task": task.name,
        "columns": dict(named.names),
        "columns_given": sorted(named.given),
        "files": [{"file": table.file, "split": name, "rows": table.read} for name, group in found.items() for table in group],
        "ignored": ignored,
        "read": sum(totals.values()),
        "rows": {name: len(part) for name, part in splits.items()},
        "dropped": [{"file": one.file, "row": one.row, "reason": one.reason} for one in dropped],
        "labels": labels,
        "out_of_scope": scope,
        "label_counts": {name: _counts(part) for name, part in splits.items()} if labelled else {},
        "duplicates": duplicates,
        "conflicts": {"texts": len(conflicts), "rows": [{"file": r["file"], "row": r["row"]} for group in conflicts for r in group]},
        "overlap": overlap,
        "cut": made,
        "characters": {name: _characters(part, named.names) for name, part in splits.items()},
    }
    return Loaded(splits, facts)


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """The rows of one split that the prepare stage wrote into `folder`."""
    path = folder / f"{split}.jsonl"
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        raise RunError(f"{folder} holds no {path.name}", mend="edgetune adapt writes it") from None


def _drop(splits: dict[str, list[dict[str, Any]]], bad: list[Bad]) -> None:
    if not bad:
        return
    reasons = Counter(one.reason for one in bad)
    progress.warn(f"{len(bad):,} rows dropped: " + ", ".join(f"{n:,} with {reason}" for reason, n in reasons.most_common()))
    out = {(one.file, one.row) for one in bad}
    for name, part in splits.items():
        splits[name] = [row for row in part if (row["file"], row["row"]) not in out]
        if not splits[name]:
            why = [f"{n:,} rows with {reason}" for reason, n in reasons.most_common(5)]
            raise DataError(f"no usable row is left in {name}", details=why, mend="mend the rows that were dropped")


def _counts(part: list[dict[str, Any]]) -> dict[str, int]:
    return dict(sorted(Counter(row["label"] for row in part).items()))


def _characters(part: list[dict[str, Any]], names: Mapping[str, str]) -> dict[str, dict[str, float]]:
    import numpy as np

    found = {}
    for column in names:
        if column == "label":
            continue
        sizes = [sum(len(m["content"]) for m in row[column]) if column == columns.MESSAGES else len(row[column]) for row in part]
        low, median, p95, high = np.percentile(sizes, [0, 50, 95, 100]).tolist()
        found[column] = {"min": low, "median": median, "p95": p95, "max": high}
    return found
