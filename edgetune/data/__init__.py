"""A user's data -> checked rows in the task's own columns, every row of which is used or reported."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune import progress, tasks
from edgetune.data import check, classes, columns, find, kinds, split
from edgetune.data.earlier import Earlier
from edgetune.data.find import SPLITS, digests
from edgetune.data.table import Bad
from edgetune.errors import DataError, RunError
from edgetune.recipe import Recipe

__all__ = ["SPLITS", "Loaded", "digests", "load", "rows"]


@dataclass(frozen=True)
class Loaded:
    """Rows by split (`train`, `validation`, `test`), and what was found out about them.

    A row has the task's columns, in the form that `edgetune.data.kinds` gives them (`text`, `label`; `text`, `words`, `tags`; `question`,
    `context`, `answers`; `messages`; ...), its `row` number (see `edgetune.data.forms`), its `file`, and its `group` where there is one; a test
    row whose text was in train too has `overlap: true`, a row of the run that is continued `earlier: true`.
    """

    splits: dict[str, list[dict[str, Any]]]
    facts: dict[str, Any]


def load(recipe: Recipe, earlier: Earlier | None = None) -> Loaded:
    """Read, check and split `recipe.data`, beside the rows of the run that is continued. Raises DataError, with all problems of a kind
    together, for what cannot be used.

    `facts` are JSON values and hold no text of the rows:
      task, columns {column: name in the file}, columns_given [those that the recipe named], files [{file, split, rows}], ignored [names],
      read (rows), rows {split: n}, not_drawn (rows of train beyond data.shots of a label),
      dropped [{file, row, reason}]: read = sum of rows + not_drawn + length of dropped, mended [{file, row, reason}],
      labels (sorted, without out_of_scope; for tags O, B-x, I-x, ...), out_of_scope (label or None),
      label_counts {split: {label: n}}, entity_counts {split: {type: n}} (rows with tags),
      answers {split: {answered, unanswered}} (rows with answers), scores {split: {min, mean, max}}, group (column or ""),
      duplicates {split: n} (rows whose text an earlier row has; in train those with the same answer were dropped),
      conflicts {texts, rows [{file, row}]} (texts with several answers in train), overlap {"train_test": rows of test that were in
      train, ...}, cut {split: "train"} for splits that were missing, characters {split: {column: {min, median, p95, max}}},
      and earlier {run, rows {split: n of rows, which are not among those read}, of (rows of its train), labels (n)} where one is continued.
    """
    task, several = tasks.get(recipe.task), find.data_sets(recipe.data)
    if several and "tasks" not in task.columns:
        raise DataError(
            f"{recipe.data.path} holds {len(several)} data sets: {', '.join(several)}",
            mend=f"--task multi-task makes one model of all; for {task.name} give one of the folders as --data",
        )
    found, ignored = find.tables(recipe.data)
    tables = [table for group in found.values() for table in group]
    totals = {table.file: table.read for table in tables}
    bad = [one for table in tables for one in table.bad]
    if not all(table.rows for table in tables):
        raise check.refuse(bad, totals, task, None)

    named = columns.find(task, recipe, tables)
    splits: dict[str, list[dict[str, Any]]] = {name: [] for name in found}
    mended: list[Bad] = []
    for name, group in found.items():
        for table in group:
            good, lacking, repaired = columns.rows(table, named)
            splits[name] += good
            bad += lacking
            mended += repaired
    if not all(splits.values()):
        raise check.refuse(bad, totals, task, named)

    classed = [column for column in classes.CLASSED if column in named.names or (column == "tags" and "spans" in named.names)]
    scope = _scope(recipe, splits, earlier) if "label" in classed else None
    duplicates = {name: check.repeats(part) for name, part in splits.items()}
    overlap, leaked = check.separate(splits)
    if earlier:
        leaked += earlier.separate(splits)
    answered = next(
        (column for column in columns.ANSWERED if column in splits["train"][0]), "completion" if columns.MESSAGES in named.names else ""
    )
    splits["train"], repeated, conflicts = check.deduplicate(splits["train"], answered)
    for column in classed:
        bad += check.unseen(splits, column, scope, earlier.known(column) if earlier else ())
    if bad and recipe.data.on_bad_row == "error":
        raise check.refuse(bad, totals, task, named)
    _drop(splits, bad)
    labels = _labels(task, splits, classed, scope, earlier)
    check.groups(splits)
    splits["train"], learned = earlier.aside(splits["train"]) if earlier else (splits["train"], [])
    made = split.complete(splits, recipe.seed)
    splits["train"] = splits["train"] + learned
    whole = len(splits["train"])
    if recipe.data.shots:
        splits["train"] = split.few(splits["train"], recipe.data.shots, recipe.seed, bool(made))
    drawn = len(splits["train"])
    splits, again = earlier.joined(splits, recipe.seed) if earlier else (splits, {})

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
        "not_drawn": whole - drawn,
        "dropped": [{"file": one.file, "row": one.row, "reason": one.reason} for one in dropped],
        "mended": [{"file": one.file, "row": one.row, "reason": one.reason} for one in check.in_order(mended, totals)],
        "labels": labels,
        "out_of_scope": scope,
        "label_counts": {name: classes.counts(part, of[0]) for name, part in splits.items()}
        if (of := [c for c in classed if c != "tags"])
        else {},
        "entity_counts": {name: classes.counts(part, "tags") for name, part in splits.items()} if "tags" in classed else {},
        "answers": {name: _answered(part) for name, part in splits.items()} if "answers" in named.names else {},
        "scores": {name: _scores(part) for name, part in splits.items()} if "score" in named.names else {},
        "group": named.group,
        "duplicates": duplicates,
        "conflicts": {"texts": len(conflicts), "rows": [{"file": r["file"], "row": r["row"]} for group in conflicts for r in group]},
        "overlap": overlap,
        "cut": made,
        "characters": {name: _characters(part) for name, part in splits.items()},
        **({"earlier": again} if again else {}),
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


def _scope(recipe: Recipe, splits: dict[str, list[dict[str, Any]]], earlier: Earlier | None) -> str | None:
    if earlier is None:
        return check.out_of_scope(recipe.data.out_of_scope, splits)
    return check.out_of_scope(
        earlier.scope(recipe.data.out_of_scope), {**splits, "earlier": [r for rows in earlier.splits.values() for r in rows]}
    )


def _labels(
    task: tasks.Task, splits: dict[str, list[dict[str, Any]]], classed: list[str], scope: str | None, earlier: Earlier | None = None
) -> list[str]:
    """The labels of the task: as its module lists them, else those of its first column with classes, then of the next. Those of the run
    that is continued come first."""
    found: list[str] = []
    for column in classed:
        own = classes.known([*splits["train"], *(earlier.splits["train"] if earlier else ())], column, scope)
        found += own
        counts = classes.counts(splits["train"], column)
        classes.say_unbalanced(counts, column, scope)
        classes.say_missing([name for name in counts if name != scope], splits, column)
    if earlier:
        return earlier.extended(found, several=not {"labels", "tags"}.isdisjoint(classed))
    listed = getattr(task.module, "classes", None) if classed else None
    return list(listed(splits["train"])) if listed else found


def _answered(part: list[dict[str, Any]]) -> dict[str, int]:
    answered = sum(bool(row["answers"]) for row in part)
    return {"answered": answered, "unanswered": len(part) - answered}


def _scores(part: list[dict[str, Any]]) -> dict[str, float]:
    scores = [row["score"] for row in part]
    return {"min": min(scores), "mean": sum(scores) / len(scores), "max": max(scores)}


def _characters(part: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    import numpy as np

    found = {}
    for column in (*kinds.TEXTS, columns.MESSAGES):
        if column not in part[0]:
            continue
        sizes = [sum(len(m["content"]) for m in row[column]) if column == columns.MESSAGES else len(row[column]) for row in part]
        low, median, p95, high = np.percentile(sizes, [0, 50, 95, 100]).tolist()
        found[column] = {"min": low, "median": median, "p95": p95, "max": high}
    return found
