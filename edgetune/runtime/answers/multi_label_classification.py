"""Any number of labels for a text, or for a pair of texts: each is a yes or no of its own."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .probability import sigmoid
from .text_classification import SHOWN, read

__all__ = ["decode", "line", "read"]
HALF = 0.5  # where no thresholds were chosen


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], cut: bool) -> dict[str, Any]:
    """`labels` whose probability is at their threshold or over it, the likeliest first; `scores` of those and of the three best; `cut`."""
    names = bundle.facts["labels"]
    chances = sigmoid(outputs["logits"][0])
    given = np.array((bundle.facts["confidence"] or {}).get("thresholds", [HALF] * len(names)))
    order = np.argsort(-chances, kind="stable")
    said = [names[i] for i in order if chances[i] >= given[i]]
    shown = {names[i]: float(chances[i]) for place, i in enumerate(order) if place < SHOWN or chances[i] >= given[i]}
    return {"labels": said, "scores": shown, "cut": cut}


def line(found: Mapping[str, Any]) -> str:
    said = [f"{found['scores'][label]:.3f}" for label in found["labels"]]
    return f"{', '.join(found['labels']) or '(no label)'}\t{' '.join(said)}".rstrip()
