"""The entities in a text: what they are and where they stand."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .entities import read, shown, tagged

__all__ = ["decode", "line", "read"]


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], kept: Mapping[str, Any]) -> dict[str, Any]:
    """`entities`, each with `label`, `text`, `start`, `end` and `score`, in the order of the text; `cut`."""
    return {"entities": tagged(outputs["logits"][0], bundle.facts["labels"], kept), "cut": kept["cut"]}


def line(found: Mapping[str, Any]) -> str:
    return shown(found["entities"])
