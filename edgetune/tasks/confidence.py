"""Confidence that means something: temperature scaling and the threshold under which the answer is "no label".

Temperature: Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599. Both are chosen on validation rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetune.tasks import Scores

OUT_OF_SCOPE = -1  # the class index of rows that belong to no label
KEEP = 0.95  # share of the right answers on validation that the threshold keeps when no row is marked out of scope


@dataclass(frozen=True)
class Confidence:
    """`temperature` divides the logits; an answer whose probability is under `reject_below` is "no label"."""

    temperature: float
    reject_below: float
    chosen_by: str


def fit(scores: Scores, reject_below: float | None) -> Confidence:
    """Choose both on the validation `scores`; a number in `reject_below` is taken as it is (0: never reject).

    With rows marked out of scope the threshold maximises (kept in scope + rejected out of scope) / 2; without, it keeps 95 %
    of the right answers.
    """
    assert scores.logits is not None and scores.target is not None
    known = scores.target != OUT_OF_SCOPE
    temperature = _temperature(scores.logits[known], scores.target[known])
    probability = softmax(scores.logits, temperature).max(-1)
    if reject_below is not None:
        return Confidence(temperature, reject_below, "the recipe")
    right = probability[scores.value > 0]
    outside = probability[~known]
    if len(outside) == 0:
        threshold = float(np.quantile(right, 1 - KEEP)) if len(right) else 0.0
        return Confidence(temperature, threshold, f"validation: keeps {KEEP:.0%} of the right answers")
    from sklearn.metrics import roc_curve

    inside = probability[known]
    false, true, thresholds = roc_curve(np.r_[np.ones(len(inside)), np.zeros(len(outside))], np.r_[inside, outside])
    best = int(np.argmax(true - false))
    above = float(min(thresholds[best], 1.0))
    below = outside[outside < above]
    threshold = (above + float(below.max())) / 2 if len(below) else above
    return Confidence(temperature, threshold, f"validation: {len(outside)} rows out of scope against {len(inside)} in scope")


def measure(scores: Scores, confidence: Confidence) -> dict[str, float]:
    """expected_calibration_error, answered (share of the rows in scope), accuracy_answered, and, with rows out of scope,
    out_of_scope_rejected and out_of_scope_auroc."""
    assert scores.logits is not None and scores.target is not None
    known = scores.target != OUT_OF_SCOPE
    probability = softmax(scores.logits, confidence.temperature).max(-1)
    answered = probability[known] >= confidence.reject_below
    right = scores.value[known]
    found = {
        "expected_calibration_error": _calibration_error(probability[known], right),
        "answered": float(answered.mean()),
        "accuracy_answered": float(right[answered].mean()) if answered.any() else 0.0,
    }
    if not known.all():
        from sklearn.metrics import roc_auc_score

        found["out_of_scope_rejected"] = float((probability[~known] < confidence.reject_below).mean())
        found["out_of_scope_auroc"] = float(roc_auc_score(known, probability))
    return found


def _temperature(logits: np.ndarray, target: np.ndarray) -> float:
    from scipy.optimize import minimize_scalar
    from sklearn.metrics import log_loss

    classes = list(range(logits.shape[-1]))

    def cost(log_temperature: float) -> float:
        return float(log_loss(target, softmax(logits, float(np.exp(log_temperature))), labels=classes))

    return float(np.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x))


def _calibration_error(probability: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error over equal-width bins (Guo et al., section 2)."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gaps = [abs(probability[place == b].mean() - right[place == b].mean()) * (place == b).mean() for b in range(bins) if (place == b).any()]
    return float(sum(gaps))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """[n, classes] -> probabilities [n, classes] float64 at `temperature`."""
    from scipy.special import softmax as of

    return np.asarray(of(logits.astype(np.float64) / temperature, axis=-1))
