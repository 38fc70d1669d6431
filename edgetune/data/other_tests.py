"""Further test sets: labelled rows of another domain, language or time, that nothing is learned or chosen from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune import progress, tasks
from edgetune.data import check, classes, columns, find
from edgetune.data.columns import key
from edgetune.data.earlier import ABOUT
from edgetune.data.read import stem_of
from edgetune.errors import DataError, RecipeError
from edgetune.recipe import Recipe

KEY = "data.other_tests"
_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class OtherTest:
    """Rows in the task's own columns, as `edgetune.data.Loaded` has them. `facts`: file, read, rows, dropped [{row, reason}], and overlap: how
    many of them train has too."""

    rows: list[dict[str, Any]]
    facts: dict[str, Any]


def named(recipe: Recipe) -> dict[str, str]:
    """File by name, of `data.other_tests`: NAME=FILE, or FILE, which is called as it is. Raises RecipeError."""
    found: dict[str, str] = {}
    for given in recipe.data.other_tests:
        name, equals, place = given.partition("=")
        if not equals:
            name, place = stem_of(Path(given)), given
        if not place or not _NAME.fullmatch(name) or name in find.SPLITS:
            raise RecipeError(
                f'{KEY}: "{given}" is not NAME=FILE' + (f": {name} is the name of a split" if name in find.SPLITS else ""),
                mend="give a name of letters, digits, dots and dashes, such as  --other-test kitchen=data/kitchen.csv",
            )
        if name in found:
            raise RecipeError(f"{KEY}: two are called {name}", mend="give each a name of its own:  --other-test NAME=FILE")
        found[name] = place
    return found


def digests(recipe: Recipe) -> dict[str, list[str]]:
    """sha256 of the files by name."""
    return {name: find.file_digests(place, KEY) for name, place in named(recipe).items()}


def load(recipe: Recipe, facts: Mapping[str, Any], train: list[dict[str, Any]]) -> dict[str, OtherTest]:
    """The sets by name. `facts` (those of `edgetune.data.load`) and `train`: what the model learns. Raises DataError for rows that cannot be
    used, among them those with a label that train does not have (data.on_bad_row = drop leaves them out)."""
    return {name: _load(name, place, recipe, facts, train) for name, place in named(recipe).items()}


def _load(name: str, place: str, recipe: Recipe, facts: Mapping[str, Any], train: list[dict[str, Any]]) -> OtherTest:
    task, table = tasks.get(recipe.task), find.table(place, KEY, recipe.data)
    totals = {table.file: table.read}
    found = columns.find(task, recipe, [table])
    rows, lacking, _ = columns.rows(table, found)
    bad = [*table.bad, *lacking]
    if not rows:
        raise check.refuse(bad, totals, task, found)
    own, learns = (" and ".join(sorted(one.keys() - ABOUT)) for one in (rows[0], train[0]))
    if own != learns:
        raise DataError(f"{table.file} has {own}, the training rows have {learns} ({KEY})", mend="give rows with the same columns")
    for column in classes.CLASSED:
        if column in rows[0]:
            known = {*facts["labels"], *(label[2:] for label in facts["labels"])} if column == "tags" else set(facts["labels"])
            bad += check.unseen({"train": train, "test": rows}, column, facts["out_of_scope"], known)
            _tell_absent(name, column, rows, train)
    if bad and recipe.data.on_bad_row == "error":
        raise check.refuse(bad, totals, task, found)
    out = {one.row for one in bad}
    kept = [row for row in rows if row["row"] not in out]
    if not kept:
        raise check.refuse(bad, totals, task, found)
    if out:
        reasons = Counter(one.reason for one in bad)
        progress.warn(f"{name}: {len(out):,} rows dropped: " + ", ".join(f"{n:,} with {reason}" for reason, n in reasons.most_common()))
    learned = {key(row) for row in train}
    if overlap := sum(key(row) in learned for row in kept):
        progress.warn(f"{name}: {overlap:,} of {len(kept):,} rows are also in train, so it is easier than new data will be")
    dropped = [{"row": one.row, "reason": one.reason} for one in bad]
    return OtherTest(kept, {"file": table.file, "read": table.read, "rows": len(kept), "dropped": dropped, "overlap": overlap})


def _tell_absent(name: str, column: str, rows: Sequence[Mapping[str, Any]], train: Sequence[Mapping[str, Any]]) -> None:
    """Warn where no row of the set has a class that train has."""
    every = classes.counts(train, column)
    if absent := sorted(every.keys() - classes.counts(rows, column).keys()):
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        progress.warn(f"{name} has no row of {len(absent)} of {len(every)} {classes.CLASSED[column]}s: {shown}")
