"""Two models on the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgetune.tasks import Scores, Task, flips

RESAMPLES = 1000


def difference(scores: Scores, reference: Scores, task: Task) -> dict[str, Any] | None:
    """How much more of the metric than the reference on the same rows, with its 95 % paired-bootstrap interval, and answers that flipped.

    `value` is a difference (fractions), or the relative rise of a perplexity. None when the rows used are not the same.
    """
    quality = getattr(task.module, "quality", share if task.higher_is_better else None)
    if len(scores.value) != len(reference.value) or (quality is None and not np.array_equal(scores.weight, reference.weight)):
        return None
    rows = np.flatnonzero(scores.weight + reference.weight)
    scores, reference = scores.take(rows), reference.take(rows)
    gained = scores.value - reference.value

    def metric(index: np.ndarray) -> float:
        if quality is not None:
            return float(quality(scores.take(index)) - quality(reference.take(index)))
        return float(np.expm1(gained[index].sum() / scores.weight[index].sum()))

    drawn = [metric(index) for index in np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows)))]
    found: dict[str, Any] = {
        "value": metric(np.arange(len(rows))),
        "ci95": [float(bound) for bound in np.percentile(drawn, (2.5, 97.5))],
    }
    return {**found, "flips": flipped} if (flipped := flips(reference, scores)) else found


def share(scores: Scores) -> float:
    """sum(value) / sum(weight)."""
    return float(scores.value.sum() / scores.weight.sum())
