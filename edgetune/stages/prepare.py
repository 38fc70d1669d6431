"""prepare: the user's data -> train.jsonl, validation.jsonl and test.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgetune import data
from edgetune.data.columns import key
from edgetune.errors import GateError
from edgetune.recipe import Recipe


def prepare(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write the three splits of `recipe.data` into `out` and return the facts of `edgetune.data.load`.

    Raises DataError for data that cannot be used, and GateError when a row would be lost or a cut split would share a text
    with another: that is checked on what was written.
    """
    loaded = data.load(recipe)
    for split, rows in loaded.splits.items():
        with (out / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    _prove(loaded.facts, out)
    return loaded.facts


def _prove(facts: dict[str, Any], folder: Path) -> None:
    written = {split: data.rows(folder, split) for split in data.SPLITS}
    used = sum(map(len, written.values()))
    if used + len(facts["dropped"]) != facts["read"]:
        raise GateError(f"{facts['read']:,} rows were read, but {used:,} are used and {len(facts['dropped']):,} reported")
    texts = {split: {key(row) for row in rows} for split, rows in written.items()}
    groups = {split: {row["group"] for row in rows if "group" in row} for split, rows in written.items()}
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        supplied = (first, second) == ("validation", "test") and not facts["cut"]
        shared = len(texts[first] & texts[second])
        if shared and not supplied:
            raise GateError(f"{first} and {second} share {shared:,} texts")
        if second in facts["cut"] and first in ("train", *facts["cut"]) and (shared := len(groups[first] & groups[second])):
            raise GateError(f"{first} and {second} share {shared:,} groups ({facts['group']})")
