"""Any number of labels for a text, or for a pair of texts: each label is a yes or no of its own.

The gate compares models at 0.5 for every label: a fixed point, so that no threshold is tuned on the rows that decide. What ships
has a threshold a label, tuned on validation (`calibrate`), and the report gives test metrics with both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.tasks import Encoded, Forward, Scores, Weights, balance, batches, inputs, padded, texts, tokens

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import Recipe

HALF = 0.5
FEWEST = 5  # rows of validation that must have a label, and must lack it, for its threshold to be tuned


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """Rows with `text`, `labels` and perhaps `text_pair` -> examples with `input_ids` and `target` [labels], 0 or 1."""
    examples, cut = tokens(tokenizer, *texts(rows), max_length=max_length)
    targets = [[int(label in row.get("labels", ())) for label in labels] for row in rows]
    return Encoded([{**example, "target": target} for example, target in zip(examples, targets, strict=True)], cut)


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """`labels` [b, labels] int64, 0 or 1."""
    return {**padded(examples, pad_id), "labels": np.array([example["target"] for example in examples], dtype=np.int64)}


def loss(
    outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0, weights: Weights | None = None
) -> torch.Tensor:
    """Binary cross-entropy, the mean over rows and labels; smoothing s makes 1 - s/2 of a 1 and s/2 of a 0. `logits` [b, labels]."""
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    target = batch["labels"].float() * (1 - smoothing) + smoothing / 2
    each = None
    if weights is not None:
        without, having = (torch.from_numpy(side).to(target.device) for side in weights)
        each = having.where(batch["labels"] > 0, without)
    return binary_cross_entropy_with_logits(outputs["logits"].float(), target, weight=each)


def weights(examples: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Weights:
    """(of the rows without a label [labels], of those that have it): the yes and the no of a label count the same."""
    columns = np.array([example["target"] for example in examples]).T
    both = np.stack([balance.weights(column, 2) for column in columns], axis=-1)
    return both[0], both[1]


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """value 2 tp and weight 2 tp + fp + fn of a row, at 0.5: their sums' quotient is the micro-averaged F1."""
    target = np.array([example["target"] for example in examples], dtype=np.int64)
    logits = np.empty(target.shape, dtype=np.float32)
    for index in batches(examples, size):
        batch = collate([examples[i] for i in index], pad_id)
        logits[index] = forward(inputs(batch))["logits"]
    return counted(logits, target)


def counted(logits: np.ndarray, target: np.ndarray) -> Scores:
    """See `score`; `logits` [n, labels] float32, `target` [n, labels] int64."""
    said = logits > 0
    right = 2.0 * (said & (target == 1)).sum(-1)
    return Scores(value=right, weight=(said.sum(-1) + target.sum(-1)).astype(np.float64), logits=logits, target=target)


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """micro_f1, macro_f1 (over the labels that the rows have), subset_accuracy (all labels of a row right), at 0.5; and log_loss."""
    assert scores.logits is not None and scores.target is not None
    raised = scores.logits.astype(np.float64)
    cross_entropy = np.logaddexp(0.0, raised) - raised * scores.target
    return {**_measured(scores.target, scores.logits > 0), "log_loss": float(cross_entropy.mean())}


def report(scores: Scores, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Per label, at 0.5: precision, recall, f1, support. A label stands in no other's place, so none is `taken_for` another."""
    from sklearn.metrics import precision_recall_fscore_support

    assert scores.logits is not None and scores.target is not None
    columns = precision_recall_fscore_support(scores.target, scores.logits > 0, average=None, zero_division=0)
    return [
        {"label": label, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(n), "taken_for": None}
        for label, p, r, f, n in zip(labels, *(np.atleast_1d(column) for column in columns), strict=True)
    ]


def calibrate(scores: Scores, recipe: Recipe) -> dict[str, Any]:
    """`thresholds`, one a label: where its F1 on validation is best (Yang 2001, "A study of thresholding strategies", SCut), half-way to
    the next lower probability. 0.5 for a label with too few rows to tell; `export.reject_below` is taken for all as it is (0: 0.5 for all).
    """
    assert scores.logits is not None and scores.target is not None
    count = scores.logits.shape[1]
    if (asked := recipe.export.reject_below) is not None:
        return {"thresholds": [asked or HALF] * count, "chosen_by": "the recipe"}
    chance = probabilities(scores.logits)
    found = [_threshold(scores.target[:, i], chance[:, i]) for i in range(count)]
    tuned = sum(one is not None for one in found)
    return {
        "thresholds": [HALF if one is None else one for one in found],
        "chosen_by": f"validation: best F1 of each label, for {tuned} of {count} labels; {HALF} for the others, which are too rare or too common there",
    }


def calibrated(scores: Scores, facts: Mapping[str, Any]) -> dict[str, float]:
    """micro_f1, macro_f1 and subset_accuracy with the thresholds that ship."""
    assert scores.logits is not None and scores.target is not None
    return _measured(scores.target, probabilities(scores.logits) >= np.array(facts["thresholds"]))


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The logistic function, float64."""
    from scipy.special import expit

    return np.asarray(expit(logits.astype(np.float64)))


def _measured(target: np.ndarray, said: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    present = np.flatnonzero(target.any(axis=0))
    macro = f1_score(target[:, present], said[:, present], average="macro", zero_division=0) if len(present) else 0.0
    return {
        "micro_f1": float(f1_score(target, said, average="micro", zero_division=0)),
        "macro_f1": float(macro),
        "subset_accuracy": float(accuracy_score(target, said)),
    }


def _threshold(target: np.ndarray, chance: np.ndarray) -> float | None:
    """The probability from which a label is said; None where the rows are too few to tell."""
    from sklearn.metrics import precision_recall_curve

    if not FEWEST <= target.sum() <= len(target) - FEWEST:
        return None
    precision, recall, thresholds = precision_recall_curve(target, chance)
    both = precision[:-1] + recall[:-1]
    f1 = np.divide(2 * precision[:-1] * recall[:-1], both, out=np.zeros_like(both), where=both > 0)
    best = int(f1.argmax())
    below = thresholds[best - 1] if best else 0.0
    return float((thresholds[best] + below) / 2)
