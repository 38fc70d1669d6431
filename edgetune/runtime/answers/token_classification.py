"""Entities in a text."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .entities import entities, one_line


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], Any]:
    row, found = bundle.tokenized(item)
    return [row], (item["text"], found.offsets, bool(found.overflowing))


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], kept: Any) -> dict[str, Any]:
    """`entities` (see entities.py), `cut`."""
    text, offsets, cut = kept
    return {"entities": entities(text, offsets, outputs["logits"][0], bundle.facts["labels"]), "cut": cut}


def line(found: Mapping[str, Any]) -> str:
    return one_line(found["entities"])
