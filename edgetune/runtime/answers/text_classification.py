"""One label for a text, or for a pair of texts."""

from __future__ import annotations

from typing import Any, Mapping, Sequence  # noqa: UP035

import numpy as np

from .probability import softmax

SHOWN = 3  # labels in an answer
SURE = {"temperature": 1.0, "reject_below": 0.0}  # where nothing was chosen


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], bool]:
    row, found = bundle.tokenized(item)
    return [row], bool(found.overflowing)


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], cut: bool) -> dict[str, Any]:
    """`label` (None: too unsure), `confidence`, `scores` of the three best labels, `cut`."""
    return {**chosen(outputs["logits"][0], bundle.facts["labels"], bundle.facts["confidence"] or SURE), "cut": cut}


def chosen(logits: np.ndarray, labels: Sequence[str], trust: Mapping[str, Any]) -> dict[str, Any]:
    """`logits` [labels] -> `label`, `confidence` and `scores`, with the `temperature` and the threshold (`reject_below`) of `trust`."""
    chances = softmax(logits / trust["temperature"])
    best = np.argsort(-chances, kind="stable")[:SHOWN]
    top = float(chances[best[0]])
    return {
        "label": labels[best[0]] if top >= trust["reject_below"] else None,
        "confidence": top,
        "scores": {labels[i]: float(chances[i]) for i in best},
    }


def line(found: Mapping[str, Any]) -> str:
    return f"{found['label'] or '(no label)'}\t{found['confidence']:.3f}"
