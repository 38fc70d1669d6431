"""The data sets that several scripts read, as rows of a text and its label, and the tables that edgetune reads."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, str]


def banking77(data: Path, split: str) -> Iterator[Row]:
    with (data / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        yield from ((row["text"], row["category"]) for row in csv.DictReader(file))


def snips_requests(data: Path, split: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(intent, its requests): train is the full training set, test the 700 rows called validate, which papers test on."""
    own = {"train": "train_{}_full.json", "test": "validate_{}.json"}[split]
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        raw = (folder / own.format(folder.name)).read_bytes()
        text = raw.decode("utf-8", "surrogatepass").encode("utf-16", "surrogatepass").decode("utf-16")  # one file is CESU-8
        yield folder.name, json.loads(text)[folder.name]


def snips(data: Path, split: str) -> Iterator[Row]:
    """The requests as texts with their intents."""
    for intent, requests in snips_requests(data, split):
        yield from (("".join(piece["text"] for piece in request["data"]).strip(), intent) for request in requests)


def first(rows: Iterable[Row], labels: Container[str], most: int) -> Iterator[Row]:
    """The first `most` rows of each of `labels` (0: all of them), in their order."""
    taken: Counter[str] = Counter()
    for text, label in rows:
        taken[label] += 1
        if label in labels and (not most or taken[label] <= most):
            yield text, label


def write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
