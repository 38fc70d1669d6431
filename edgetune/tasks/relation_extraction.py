"""The relation between two marked entities of a text, one label a pair, scored as SemEval-2010 task 8 does.

A label is a relation and perhaps a direction, "Cause-Effect(e2,e1)". The official score ("(9+1)-way, directionality taken into account":
Hendrickx et al., S10-1006, and the scorer that came with the data) is the macro-average of the F1 of each relation but Other, both
directions together; an answer with the right relation and the wrong direction is a false one for its relation and a miss of the true one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edgetune.tasks import Encoded, Forward, Scores, text_classification
from edgetune.tasks.confidence import OUT_OF_SCOPE
from edgetune.tasks.text_classification import calibrate, calibrated, collate, loss, report, weights

__all__ = ["calibrate", "calibrated", "collate", "encode", "loss", "metrics", "quality", "report", "score", "weights"]

OTHER = frozenset(
    {"other", "no_relation", "none", "na"}
)  # what data sets call a pair without a relation of theirs; counted in accuracy only
NONE = -1  # its index
DIRECTION = re.compile(r"\s*\(e([12]),\s*e(?!\1)[12]\)$")


def relations(labels: Sequence[str]) -> tuple[list[str], list[int]]:
    """(relations but Other, sorted; for each label the index of its relation, -1 for Other)."""
    plain = [DIRECTION.sub("", label) for label in labels]
    names = sorted({name for name in plain if name.lower() not in OTHER})
    return names, [names.index(name) if name in names else NONE for name in plain]


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """As text classification; `relations` of an example are those of all labels, by their indices."""
    found = text_classification.encode(rows, tokenizer, max_length=max_length, labels=labels)
    _, of = relations(labels)
    return replace(found, examples=[{**example, "relations": of} for example in found.examples])


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """As text classification; `extra` [n, 2]: the relation that is right, and the one that was answered."""
    scores = text_classification.score(forward, examples, pad_id, size)
    assert scores.logits is not None and scores.target is not None
    of = np.array([*examples[0]["relations"], NONE])  # the last one: a row that is out of scope
    return replace(scores, extra=np.stack([of[scores.target], of[scores.logits.argmax(-1)]], axis=-1).astype(np.float64))


def quality(scores: Scores) -> float:
    """macro_f1 of `metrics`, by counting: an answer counts when its label is right, direction included."""
    assert scores.extra is not None
    known = scores.weight > 0
    target, answer = scores.extra[known].astype(int).T + 1  # Other is 0
    size = int(max(target.max(initial=0), answer.max(initial=0))) + 1
    right, there, said = (np.bincount(which, minlength=size)[1:] for which in (target[scores.value[known] > 0], target, answer))
    present = there > 0
    return float((2 * right[present] / (there + said)[present]).mean()) if present.any() else 0.0


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """accuracy (over all labels), macro_f1 (the official score; over the relations that the rows have), micro_f1, log_loss."""
    from sklearn.metrics import f1_score

    assert scores.logits is not None and scores.target is not None
    known = scores.target != OUT_OF_SCOPE
    target, answer = scores.target[known], scores.logits[known].argmax(-1)
    names, of = relations(labels)
    wanted, said = official(target, answer, np.array(of), len(names))
    present = np.flatnonzero(wanted.any(0))
    found = text_classification.metrics(scores, labels)
    return {
        "accuracy": found["accuracy"],
        "macro_f1": float(f1_score(wanted, said, average="macro", labels=present, zero_division=0)) if len(present) else 0.0,
        "micro_f1": float(f1_score(wanted, said, average="micro", zero_division=0)) if len(present) else 0.0,
        "log_loss": found["log_loss"],
    }


def official(target: np.ndarray, answer: np.ndarray, of: np.ndarray, relations: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and answers [n] as two indicator arrays [m, relations] of what is there and what was said, as scikit-learn takes them.

    `of` [labels]: their relations. A wrong direction makes two rows: one where the relation is there and was not said, one where it was
    said and is not there. Other is no relation: a row of zeros.
    """
    turned = (of[target] == of[answer]) & (target != answer)
    nothing = np.full(int(turned.sum()), NONE)
    eye = np.vstack([np.eye(relations, dtype=int), np.zeros((1, relations), dtype=int)])
    wanted = np.concatenate([of[target], nothing])
    said = np.concatenate([np.where(turned, NONE, of[answer]), of[answer][turned]])
    return eye[wanted], eye[said]
