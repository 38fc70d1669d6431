"""Rows of the run that is continued beside new ones: each stays in the split that it was in, and some of train are learned again."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.data.columns import key
from edgetune.data.split import strata
from edgetune.data.table import Bad
from edgetune.errors import DataError

Rows = list[dict[str, Any]]
LEAST = 10  # rows of each class that are replayed, where it has them
MARK = "earlier"  # of a row of the run that is continued
ABOUT = {"row", "file", "group", "overlap", MARK}  # what a row has beside the columns of its task


@dataclass(frozen=True)
class Earlier:
    """What `run` learned: its rows by split, as its prepare stage wrote them, with its `labels` in their order.

    `replay`: rows of its train that are learned again, for each new one; None: as many of each class as the new rows have of one, in the median.
    """

    run: str
    splits: Mapping[str, Rows]
    labels: Sequence[str]
    out_of_scope: str | None
    replay: float | None

    def scope(self, named: str) -> str:
        """The name of rows out of scope: the one that the recipe gives, else that of the run. Raises DataError when they contradict."""
        known = self.out_of_scope
        if named and known and named != known:
            raise DataError(
                f'rows out of scope are called "{named}", but "{known}" in {self.run}', mend=f'call them "{known}" in the new rows too'
            )
        if named in self.labels:
            raise DataError(f'"{named}" is a label of {self.run}, so it cannot mean out of scope', mend="leave data.out_of_scope away")
        return named or known or ""

    def known(self, column: str) -> set[str]:
        """The classes of a column that the run knows."""
        return {label[2:] for label in self.labels if label != "O"} if column == "tags" else set(self.labels)

    def extended(self, found: Sequence[str], several: bool) -> list[str]:
        """The run's labels at their places, then those that are new. `several`: a row can have more than one."""
        new = [label for label in found if label not in set(self.labels)]
        if new and several:
            progress.warn(f"rows of {self.run} are taken to be without the new labels, which nobody looked for in them")
        return [*self.labels, *new]

    def separate(self, splits: dict[str, Rows]) -> list[Bad]:
        """Take new rows out of `splits` whose text the run chose or tested with, and mark those of test that it learned from.

        Returns the rows that left. Raises DataError when rows have other columns, or none is left in a split.
        """
        new, known = (sorted(splits["train"][0].keys() - ABOUT) for splits in (splits, self.splits))
        if new != known:
            what = f"the new rows have {' and '.join(new)}, those of {self.run} {' and '.join(known)}"
            raise DataError(what, mend="give rows with the same columns")
        held = {key(row): split for split in ("test", "validation") for row in self.splits[split]}
        learned = {key(row) for row in self.splits["train"]}
        left: list[Bad] = []
        for split, rows in splits.items():
            out = [row for row in rows if key(row) in held]
            left += [Bad(row["file"], row["row"], f"also in {held[key(row)]} of {self.run}") for row in out]
            splits[split] = [row for row in rows if key(row) not in held]
            if out:
                progress.warn(
                    f"{split}: {len(out):,} new rows are also in validation or test of {self.run}, and left: they stay where they were"
                )
            if not splits[split]:
                raise DataError(f"no new row is left in {split}: validation or test of {self.run} has each", mend="give rows that are new")
        for split in ("validation", "test"):
            if seen := [row for row in splits.get(split, ()) if key(row) in learned]:
                progress.warn(f"{split}: {len(seen):,} new rows are also in train of {self.run}, which has learned them")
                for row in seen if split == "test" else ():
                    row["overlap"] = True
        return left

    def aside(self, rows: Rows) -> tuple[Rows, Rows]:
        """(rows that a split may be cut from, rows whose text the run learned from: they are for train)."""
        learned = {key(row) for row in self.splits["train"]}
        return [row for row in rows if key(row) not in learned], [row for row in rows if key(row) in learned]

    def joined(self, splits: Mapping[str, Rows], seed: int) -> tuple[dict[str, Rows], dict[str, Any]]:
        """(new rows and those of the run, which come first and have MARK; how many of these there are). Of its train so many as are replayed.

        A row that is replayed has no text of a new row.
        """
        new = {key(row) for rows in splits.values() for row in rows}
        pool = [row for row in self.splits["train"] if key(row) not in new]
        if self.replay is None:
            each = max(LEAST, round(float(np.median(list(Counter(strata(splits["train"])).values())))))
            again, how = replayed(pool, 0, seed, each), f"{each} of a label, as the new rows have"
        else:
            again = replayed(pool, self.replay * len(splits["train"]), seed) if self.replay else []
            how = f"continual.replay = {self.replay:g}"
        old = {"train": again, "validation": self.splits["validation"], "test": self.splits["test"]}
        joined = {split: [{**row, MARK: True} for row in old[split]] + splits[split] for split in splits}
        of = len(self.splits["train"])
        progress.note(
            f"{len(splits['train']):,} new rows and {len(again):,} of {of:,} of {self.run} to learn from ({how}); "
            + ", ".join(f"{split}: {len(old[split]):,} old rows, {len(splits[split]):,} new" for split in ("validation", "test"))
        )
        return joined, {"run": self.run, "rows": {split: len(rows) for split, rows in old.items()}, "of": of, "labels": len(self.labels)}


def replayed(rows: Rows, count: float, seed: int, least: int = LEAST) -> Rows:
    """About `count` of `rows`, drawn per class in its share, but `least` of each class where it has them; in their order, the same for a seed."""
    chance = random.Random(f"{seed}:replay")
    places: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(strata(rows)):
        places[name].append(i)
    drawn = [(rank, (rank + 0.5) / len(of), i) for _, of in sorted(places.items()) for rank, i in enumerate(chance.sample(of, len(of)))]
    kept = {i for rank, _, i in drawn if rank < least}
    rest = sorted((share, i) for rank, share, i in drawn if rank >= least)
    kept |= {i for _, i in rest[: max(0, round(count) - len(kept))]}
    return [row for i, row in enumerate(rows) if i in kept]
