"""A number for a text, or for a pair of texts, in the unit of the data."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .text_classification import read

__all__ = ["decode", "line", "read"]


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], cut: bool) -> dict[str, Any]:
    """`score`, `cut`."""
    return {"score": float(outputs["logits"][0, 0]), "cut": cut}


def line(found: Mapping[str, Any]) -> str:
    return f"{found['score']:.3f}"
