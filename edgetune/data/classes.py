"""The classes of rows: labels, intents, sets of labels, types of entities, labels of several tasks (each as `task:label`)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from edgetune import progress
from edgetune.data import tags
from edgetune.errors import DataError

Rows = Sequence[Mapping[str, Any]]
CLASSED = {"label": "label", "intent": "intent", "labels": "label", "tags": "entity type", "tasks": "label"}  # column -> what it holds
FEWEST = {"label": 2, "intent": 2, "labels": 1, "tags": 1, "tasks": 2}  # classes without which there is nothing to learn
UNBALANCED = 10  # times as many rows as another class


def of(row: Mapping[str, Any], column: str) -> list[str]:
    """The classes that a row has in `column`: one, several or none; for tags the type of each entity."""
    value = row[column]
    if column == "tags":
        return [kind for _, _, kind in tags.entities(value)]
    if column == "tasks":
        return [f"{task}:{label}" for task, label in value.items()]
    return list(value) if column == "labels" else [value]


def every(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(column, class) of all that a row has."""
    return [(column, name) for column in CLASSED if column in row for name in of(row, column)]


def counts(rows: Rows, column: str) -> dict[str, int]:
    return dict(sorted(Counter(name for row in rows for name in of(row, column)).items()))


def known(rows: Rows, column: str, scope: str | None) -> list[str]:
    """The classes of train, sorted, without the one out of scope; for tags every BIO2 tag, O first.

    Raises DataError when there is nothing to tell apart.
    """
    found = counts(rows, column)
    names = [name for name in found if name != scope]
    what = CLASSED[column]
    if len(names) < FEWEST[column]:
        if column == "label":
            only = f'one class only ("{names[0][:60]}", {found[names[0]]:,} rows)' if names else "no class"
        else:
            only = f"one {what} only" if names else f"no {what}"
        aside = [f'rows labelled "{scope}" count as no class'] if scope else []
        needs = "a classifier tells at least two labels apart" if FEWEST[column] > 1 else "there is nothing to learn"
        raise DataError(f"train has {only}", details=[needs, *aside], mend=f"check data.{column}")
    if column != "tags" and numbers(names):
        progress.warn(f"{what}s are numbers with fractions ({', '.join(names[:3])}, ...): --task text-regression learns to say a number")
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in names:
        spellings[name.casefold()].append(name)
    alike = [" / ".join(group) for group in spellings.values() if len(group) > 1]
    if alike:
        kind = "labels" if column == "label" else f"{what}s"
        progress.warn(f"{kind} that differ only in case are different classes: {', '.join(alike[:5])}")
    return tags.listed(names) if column == "tags" else names


def numbers(names: Iterable[str]) -> bool:
    """Whether all are numbers, and one has a fraction: no names of classes."""
    try:
        found = [float(name) for name in names]
    except ValueError:
        return False
    return any(math.isfinite(value) and not value.is_integer() for value in found)


def say_unbalanced(found: Mapping[str, int], column: str, scope: str | None) -> None:
    """Warn where the classes of train are far from equal."""
    ordered = sorted((count, name) for name, count in found.items() if name != scope)
    if len(ordered) > 1 and ordered[-1][0] >= UNBALANCED * ordered[0][0]:
        (fewest, rare), (most, common) = ordered[0], ordered[-1]
        progress.warn(
            f'{CLASSED[column]}s are unbalanced in train: "{common[:60]}" {most:,} times, "{rare[:60]}" {fewest:,}; '
            "look at macro-F1 and the worst label's recall, since a common class hides a rare one; --class-weights balanced makes each count the same"
        )


def say_missing(names: Collection[str], splits: Mapping[str, Rows], column: str) -> None:
    """Warn where validation or test, as the user supplied them, never show a class that train has."""
    for split in ("validation", "test"):
        if split in splits and (absent := sorted(set(names) - set(counts(splits[split], column)))):
            shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
            progress.warn(f"{split} has no row of {len(absent)} of {len(names)} {CLASSED[column]}s, so nothing proves them: {shown}")
