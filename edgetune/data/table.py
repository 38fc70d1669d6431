"""Rows of one file, and those that could not be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used. `reason` completes "the row has ..."; `detail` says more about this very row."""

    file: str
    row: int
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """The rows of one file, each with its number; `bad` are those that could not be read. `classes`: names behind integer labels."""

    file: str
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, Any]]]
    bad: list[Bad] = field(default_factory=list)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def read(self) -> int:
        return len(self.rows) + len(self.bad)


def lines(count: int, numbers: Sequence[int], word: str = "row") -> str:
    """'rows 17, 502, 9,988', or the first five 'and 12 more'."""
    shown = ", ".join(f"{n:,}" for n in numbers[:5])
    more = f" and {count - 5:,} more" if count > 5 else ""
    return f"{word}{'s' if count > 1 else ''} {shown}{more}"
