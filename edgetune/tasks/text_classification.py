"""One label for a text, or for a pair of texts: accuracy, macro-F1, and a confidence that means something.

Rows marked as out of scope carry the class index -1. In training they pull the answer towards "no idea": their target is the uniform
distribution (outlier exposure, Hendrycks et al., arXiv:1812.04606). They count in no accuracy; they choose and prove the
threshold under which the bundle answers "no label".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.tasks import Encoded, Forward, Scores, Weights, balance, batches, confidence, inputs, padded, texts, tokens
from edgetune.tasks.confidence import OUT_OF_SCOPE, softmax

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import Recipe


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """Rows with `text`, `label` and perhaps `text_pair` -> examples with `input_ids` and `label`; what is over `max_length` tokens is cut and counted.

    A label that is not in `labels` is out of scope.
    """
    index = {label: i for i, label in enumerate(labels)}
    examples, cut = tokens(tokenizer, *texts(rows), max_length=max_length)
    return Encoded(
        [{**example, "label": index.get(row.get("label", ""), OUT_OF_SCOPE)} for example, row in zip(examples, rows, strict=True)], cut
    )


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    return {**padded(examples, pad_id), "labels": np.array([example["label"] for example in examples], dtype=np.int64)}


def loss(
    outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0, weights: Weights | None = None
) -> torch.Tensor:
    """Cross-entropy with label smoothing; against the uniform distribution where the row is out of scope. `logits` [b, classes]."""
    from torch.nn.functional import cross_entropy

    labels, logits = batch["labels"], outputs["logits"].float()
    known = cross_entropy(logits, labels.clamp(min=0), reduction="none", label_smoothing=smoothing)
    if weights is not None:
        known = known * balance.of(weights[0], labels.clamp(min=0))
    return known.where(labels != OUT_OF_SCOPE, -logits.log_softmax(-1).mean(-1)).mean()


def weights(examples: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Weights:
    """Of the labels of the rows in scope; a row out of scope weighs 1."""
    found = np.array([example["label"] for example in examples])
    return (balance.weights(found[found != OUT_OF_SCOPE], len(labels)),)


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """Logits of every row, in the order of `examples`, `size` rows at a time; value 1 where the arg max is the label."""
    logits: np.ndarray | None = None
    for index in batches(examples, size):
        batch = collate([examples[i] for i in index], pad_id)
        answer = np.asarray(forward(inputs(batch))["logits"], dtype=np.float32)
        if logits is None:
            logits = np.empty((len(examples), answer.shape[-1]), dtype=np.float32)
        logits[index] = answer
    assert logits is not None, "no rows to score"
    target = np.array([example["label"] for example in examples], dtype=np.int64)
    known = target != OUT_OF_SCOPE
    return Scores(
        value=(known & (logits.argmax(-1) == target)).astype(np.float64), weight=known.astype(np.float64), logits=logits, target=target
    )


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """accuracy, macro_f1, worst_recall (the label served worst), log_loss: over the rows in scope."""
    from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

    assert scores.logits is not None and scores.target is not None
    known = scores.target != OUT_OF_SCOPE
    target, logits = scores.target[known], scores.logits[known]
    answer = logits.argmax(-1)
    present = sorted(set(target.tolist()))
    return {
        "accuracy": float(accuracy_score(target, answer)),
        "macro_f1": float(f1_score(target, answer, average="macro", labels=present, zero_division=0)),
        "worst_recall": float(recall_score(target, answer, average=None, labels=present, zero_division=0).min()),
        "log_loss": float(log_loss(target, softmax(logits), labels=list(range(len(labels))))),
    }


def report(scores: Scores, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Per label: precision, recall, f1, support, and the label that it is most often taken for."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    assert scores.logits is not None and scores.target is not None
    known = scores.target != OUT_OF_SCOPE
    target, answer = scores.target[known], scores.logits[known].argmax(-1)
    every = list(range(len(labels)))
    columns = precision_recall_fscore_support(target, answer, labels=every, zero_division=0)
    confused = confusion_matrix(target, answer, labels=every)
    np.fill_diagonal(confused, 0)
    return [
        {
            "label": label,
            "precision": float(p),
            "recall": float(r),
            "f1": float(f),
            "support": int(n),
            "taken_for": labels[int(confused[i].argmax())] if confused[i].any() else None,
        }
        for i, (label, p, r, f, n) in enumerate(zip(labels, *columns, strict=True))
    ]


def calibrate(scores: Scores, recipe: Recipe) -> dict[str, Any]:
    """temperature, reject_below, chosen_by: see `confidence`."""
    return asdict(confidence.fit(scores, recipe.export.reject_below))


def calibrated(scores: Scores, facts: Mapping[str, Any]) -> dict[str, float]:
    return confidence.measure(scores, confidence.Confidence(**facts))
