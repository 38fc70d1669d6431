"""Missing validation and test splits, cut from train."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

from edgetune import progress
from edgetune.data import classes
from edgetune.data.columns import key
from edgetune.errors import DataError

Rows = list[dict[str, Any]]
LARGEST = 2  # times the share that is cut: a group with more rows than that stays
SHARE = 10  # one in so many rows goes into each split that is cut


def complete(splits: dict[str, Rows], seed: int) -> dict[str, str]:
    """Cut what is missing of test and validation from train, 10 % each, in place. Returns {split: "train"} for those cut."""
    made: dict[str, str] = {}
    for split in ("test", "validation"):
        if split in splits:
            continue
        # The second cut takes a ninth of what the first has left: a tenth of the whole again.
        splits["train"], splits[split] = cut(splits["train"], SHARE - len(made), random.Random(f"{seed}:{split}"), grouped=True)
        if not splits[split]:
            raise DataError(
                f"too few rows to cut a {split} split from train ({len(splits['train'])} rows)",
                details=["each label keeps at least one row in train, and rows of the same text, or group, stay together"],
                mend=f"give more rows, or a file for {split} of your own",
            )
        made[split] = "train"
        progress.note(f"{split}: {len(splits[split]):,} rows cut from train (seed {seed})")
        _say_thin(splits, split)
    return made


def few(rows: Rows, shots: int, seed: int, cut: bool) -> Rows:
    """`shots` rows of each label, drawn at random, in the order of `rows`; the same for the same seed. `cut`: what these rows are left of.

    Raises DataError when a label has fewer.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        places[row["label"]].append(i)
    if short := sorted((len(found), label) for label, found in places.items() if len(found) < shots):
        fewest = short[0][0]
        shown = [f'"{label[:60]}" has {count:,}' for count, label in short[:5]]
        shown += [f"and {len(short) - 5} more labels"] if len(short) > 5 else []
        shown += ["validation and test rows were cut from train before"] if cut else []
        raise DataError(
            f"data.shots = {shots}, but {len(short)} of {len(places)} labels have fewer rows in train",
            details=shown,
            mend=f"give more rows of these labels, or --shots {fewest}",
        )
    chance = random.Random(f"{seed}:shots")
    drawn = {i for label in sorted(places) for i in chance.sample(places[label], shots)}
    progress.note(f"data.shots = {shots}: {len(drawn):,} of {len(rows):,} train rows are drawn, {shots} of each label (seed {seed})")
    return [row for i, row in enumerate(rows) if i in drawn]


def halves(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Validation in two: one to choose on, one to prove on. Stratified as `cut` is; the same for the same seed."""
    return cut(rows, 2, random.Random(f"{seed}:halves"))


def cut(rows: Rows, every: int, chance: random.Random, *, grouped: bool = False) -> tuple[Rows, Rows]:
    """(the rows that stay, about one in `every` of them), both in the order of `rows`.

    Rows of the same text, and with `grouped` those of the same `group`, stay together. Systematic sampling over the shuffled texts sorted by
    label: each label gives its share, rounded up or down, so that labels of few rows work too (scikit-learn's stratified splitters refuse
    labels with fewer rows than folds). A text with several labels, or the only text of its label, stays. Where rows have several classes
    (sets of labels, entities) their rarest one counts as the label, and the last rows of a class stay. So does a group that is too large.
    """
    together = _together(rows, grouped)
    own = strata(rows)
    by_stratum: dict[str, list[list[int]]] = defaultdict(list)
    for group in together:
        if grouped and len(group) * every > LARGEST * len(rows) and len({key(rows[i]) for i in group}) > 1:
            continue
        found = {own[i] for i in group}
        if len(found) == 1:
            by_stratum[found.pop()].append(group)
        elif grouped and len({key(rows[i]) for i in group}) > 1:  # a group of many texts has many labels
            by_stratum[""].append(group)
    line: list[list[int]] = []
    for stratum in sorted(by_stratum):
        if len(by_stratum[stratum]) > 1:
            line += chance.sample(by_stratum[stratum], len(by_stratum[stratum]))
    if not line:
        return rows, []
    chosen = _sparing(rows, line[chance.randrange(min(every, len(line))) :: every])
    return [row for i, row in enumerate(rows) if i not in chosen], [row for i, row in enumerate(rows) if i in chosen]


def _together(rows: Rows, grouped: bool) -> list[list[int]]:
    """Indices of rows that stay in one split, in the order of their first: those of one text, or (with `grouped`) linked by a group."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, row in enumerate(rows):
        links = [("text", key(row)), *([("group", row["group"])] if grouped and "group" in row else [])]
        for link in links:
            a, b = sorted((root(first.setdefault(link, i)), root(i)))
            parent[b] = a
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(rows)):
        groups[root(i)].append(i)
    return list(groups.values())


def strata(rows: Rows) -> list[str]:
    """What each row counts as: its label or intent; the rarest of its labels or entity types; else ""."""
    found = [
        [row["label"]] if "label" in row else [row["intent"]] if "intent" in row else [n for _, n in classes.every(row)] for row in rows
    ]
    counts = Counter(name for names in found for name in set(names))
    return [min(names, key=lambda name: (counts[name], name)) if names else "" for names in found]


def _sparing(rows: Rows, groups: list[list[int]]) -> set[int]:
    """The indices in `groups`, but for the groups that would take the last row of a class away."""
    left = Counter(one for row in rows for one in set(classes.every(row)))
    chosen: set[int] = set()
    for group in groups:
        own = Counter(one for i in group for one in set(classes.every(rows[i])))
        if all(left[one] > count for one, count in own.items()):
            left -= own
            chosen.update(group)
    return chosen


def _say_thin(splits: dict[str, Rows], split: str) -> None:
    for column, what in classes.CLASSED.items():
        if column not in splits["train"][0]:
            continue
        known = classes.counts(splits["train"], column)
        without = sorted(known.keys() - classes.counts(splits[split], column).keys())
        if without:
            names = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
            progress.warn(f"{split} has no row of {len(without)} of {len(known)} {what}s, which have too few: {names}")
