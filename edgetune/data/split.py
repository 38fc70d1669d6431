"""Missing validation and test splits, cut from train."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from edgetune import progress
from edgetune.data.columns import key
from edgetune.errors import DataError

Rows = list[dict[str, Any]]
SHARE = 10  # one in so many rows goes into each split that is cut


def complete(splits: dict[str, Rows], seed: int) -> dict[str, str]:
    """Cut what is missing of test and validation from train, 10 % each, in place. Returns {split: "train"} for those cut."""
    made: dict[str, str] = {}
    for split in ("test", "validation"):
        if split in splits:
            continue
        # The second cut takes a ninth of what the first has left: a tenth of the whole again.
        splits["train"], splits[split] = cut(splits["train"], SHARE - len(made), random.Random(f"{seed}:{split}"))
        if not splits[split]:
            raise DataError(
                f"too few rows to cut a {split} split from train ({len(splits['train'])} rows)",
                details=["each label keeps at least one row in train, and rows of the same text stay together"],
                mend=f"give more rows, or a file for {split} of your own",
            )
        made[split] = "train"
        progress.note(f"{split}: {len(splits[split]):,} rows cut from train (seed {seed})")
        _say_thin(splits, split)
    return made


def halves(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    """Validation in two: one to choose on, one to prove on. Stratified as `cut` is; the same for the same seed."""
    return cut(rows, 2, random.Random(f"{seed}:halves"))


def cut(rows: Rows, every: int, chance: random.Random) -> tuple[Rows, Rows]:
    """(the rows that stay, about one in `every` of them), both in the order of `rows`.

    Rows of the same text stay together. Systematic sampling over the shuffled texts sorted by label: each label gives its share,
    rounded up or down, so that labels of few rows work too (scikit-learn's stratified splitters refuse labels with fewer rows
    than folds). A text with several labels, or the only text of its label, stays.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        groups[key(row)].append(i)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        labels = {rows[i].get("label", "") for i in group}
        if len(labels) == 1:
            by_label[labels.pop()].append(group)
    line: list[list[int]] = []
    for label in sorted(by_label):
        if len(by_label[label]) > 1:
            line += chance.sample(by_label[label], len(by_label[label]))
    if not line:
        return rows, []
    chosen = {i for group in line[chance.randrange(min(every, len(line))) :: every] for i in group}
    return [row for i, row in enumerate(rows) if i not in chosen], [row for i, row in enumerate(rows) if i in chosen]


def _say_thin(splits: dict[str, Rows], split: str) -> None:
    labels = {row.get("label", "") for row in splits["train"]}
    without = sorted(labels - {row.get("label", "") for row in splits[split]})
    if without:
        names = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        progress.warn(f"{split} has no row of {len(without)} of {len(labels)} labels, which have too few: {names}")
