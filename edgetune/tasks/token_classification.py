"""Entities in a text: a tag a word, decided by the word's first sub-word, and entity F1 as seqeval counts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.tasks import Forward, Scores, Weights, batches, entities, inputs
from edgetune.tasks.entities import collate, encode

if TYPE_CHECKING:
    import torch

__all__ = ["collate", "encode", "loss", "metrics", "report", "score", "weights"]


def loss(
    outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0, weights: Weights | None = None
) -> torch.Tensor:
    """Cross-entropy with label smoothing, the mean over the tokens that are learned. `logits` [b, s, tags]."""
    return entities.loss(outputs["logits"], batch["labels"], smoothing, None if weights is None else weights[0])


def weights(examples: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Weights:
    """Of the tags of the tokens that are learned."""
    return (entities.weights(examples, len(labels)),)


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """`logits` and `target`: a line a word, in the order of `examples`; `lines`: words of a row. `extra` [n, 3]: entities that are right,
    told, there. sum(value) / sum(weight) is the micro F1 of them all: value 2 x right, weight told + there."""
    found: dict[int, np.ndarray] = {}
    for index in batches(examples, size):
        answer = forward(inputs(collate([examples[i] for i in index], pad_id)))["logits"]
        found |= {i: entities.of_words(np.asarray(line, dtype=np.float32), examples[i]) for i, line in zip(index, answer, strict=True)}
    logits = [found[i] for i in range(len(examples))]
    extra = np.array([_counts(part, example) for part, example in zip(logits, examples, strict=True)], dtype=np.float64)
    return Scores(
        value=2 * extra[:, 0],
        weight=extra[:, 1] + extra[:, 2],
        logits=np.concatenate(logits),
        target=np.concatenate([np.array(example["tags"], dtype=np.int64) for example in examples]),
        lines=np.array([len(part) for part in logits], dtype=np.int64),
        extra=extra,
    )


def _counts(logits: np.ndarray, example: Mapping[str, Any]) -> tuple[int, int, int]:
    names = example["names"]
    return entities.counts([names[i] for i in logits.argmax(-1)], [names[i] for i in example["tags"]])


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """f1, precision, recall of entities (micro averages); accuracy and log_loss of words."""
    assert scores.logits is not None and scores.target is not None and scores.extra is not None
    return {
        **entities.shares(scores.extra),
        "accuracy": float((scores.logits.argmax(-1) == scores.target).mean()),
        "log_loss": entities.log_loss(scores.logits, scores.target),
    }


def report(scores: Scores, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Per type of entity: precision, recall, f1, support, taken_for."""
    assert scores.logits is not None and scores.target is not None and scores.lines is not None
    told, right = ([labels[i] for i in indices] for indices in (scores.logits.argmax(-1), scores.target))
    return entities.report(entities.rows_of(told, scores.lines), entities.rows_of(right, scores.lines), entities.types(labels))
