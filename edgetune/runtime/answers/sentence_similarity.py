"""A text as a vector of length 1: the dot product of two says how alike their texts are."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .text_classification import read

__all__ = ["decode", "line", "read"]
SHOWN = 6  # numbers on a line for people


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], cut: bool) -> dict[str, Any]:
    """`embedding` (a list of numbers), `cut`."""
    return {"embedding": [float(value) for value in outputs["sentence_embedding"][0]], "cut": cut}


def line(found: Mapping[str, Any]) -> str:
    vector = found["embedding"]
    more = f" ... ({len(vector)} numbers)" if len(vector) > SHOWN else ""
    return " ".join(f"{value:.4f}" for value in vector[:SHOWN]) + more
