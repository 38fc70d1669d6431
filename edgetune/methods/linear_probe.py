"""A frozen base, and a logistic regression on the mean of its last states as the head: nothing is trained by steps.

A linear classifier probe (Alain and Bengio, arXiv:1610.01644). What a label means, its name or description, is a row of it too, where the
descriptions alone are right for most rows. Rows out of scope are like nothing: the head learns the uniform distribution for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.data import descriptions
from edgetune.methods import Lesson
from edgetune.methods.baselines import meant
from edgetune.methods.full import merge, restore, save
from edgetune.methods.model import forward, load_base
from edgetune.recipe import Recipe
from edgetune.tasks import Arrays, Forward, Scores, balance, batches, inputs, padded
from edgetune.tasks.text_classification import OUT_OF_SCOPE

__all__ = ["attach", "merge", "restore", "save", "training"]

INVERSE_REGULARISATION = 10.0  # C of the logistic regression
MOST_REPEATED = 10_000  # copies of rows out of scope, one for each label
BATCH = 64


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base with a head on the mean of its tokens; nothing of it has a gradient."""
    model = load_base(recipe, labels, architecture="PooledClassifier")
    model.requires_grad_(False)
    return model


def training(lesson: Lesson) -> Probe:
    """What learns in the task's place."""
    return Probe(lesson, [i for i, row in enumerate(lesson.examples) if row["label"] != OUT_OF_SCOPE])


class Probe:
    """A head that is fitted to the vectors of the rows at `inside` (labels), and of rows out of scope."""

    unit = "rows"

    def __init__(self, lesson: Lesson, inside: Sequence[int]) -> None:
        self.rows, self.classes, self.pad_id = lesson.examples, len(lesson.labels), lesson.tokenizer.pad_token_id
        self.examples: Sequence[Mapping[str, Any]] = lesson.examples
        self.balanced = lesson.recipe.adapt.class_weights == balance.BALANCED
        self._score = lesson.task.module.score
        with progress.silent():
            told = descriptions.rows(lesson.recipe, lesson.labels) if "text_pair" not in lesson.task.asks else []
        self._told = lesson.task.module.encode(told, lesson.tokenizer, max_length=lesson.max_length, labels=lesson.labels).examples
        self._right = 0.0  # share of the rows whose labels the descriptions alone tell
        outside = [i for i, row in enumerate(self.rows) if row["label"] == OUT_OF_SCOPE]
        self._inside, self._outside = sorted(inside), outside[: 1 + MOST_REPEATED // self.classes]

    def score(self, said: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = BATCH) -> Scores:
        """As the task scores, with the head that the vectors of the moment give."""
        weight, bias = self._head(said)
        scores: Scores = self._score(lambda given: {"logits": said(given)["sentence_embedding"] @ weight.T + bias}, examples, pad_id, size)
        return scores

    def finish(self, model: Any) -> None:
        """Put the head, fitted to the vectors of the trained model, into it."""
        weight, bias = self._head(forward(model.eval()))
        if self._told:
            what = "count as a row of each" if self._telling else "are no row of them: too few"
            progress.note(f"what the labels mean tells {self._right:.0%} of {len(self._inside):,} rows apart: descriptions {what}")
        with torch.no_grad():
            model.classifier.weight.copy_(torch.from_numpy(weight))
            model.classifier.bias.copy_(torch.from_numpy(bias))

    def _head(self, said: Forward) -> tuple[np.ndarray, np.ndarray]:
        """(weight [classes, hidden], bias [classes]) float32 of scikit-learn's LogisticRegression. A row out of scope counts as 1 / classes of each label."""
        from sklearn.linear_model import LogisticRegression

        target = np.array([self.rows[i]["label"] for i in self._inside])
        parts = balance.weights(target, self.classes)[target] if self.balanced else np.ones(len(target))
        features = vectors(said, [self.rows[i] for i in self._inside], self.pad_id)
        if self._told:
            names, named = vectors(said, self._told, self.pad_id), np.array([row["label"] for row in self._told])
            self._right = float(((features @ meant(names, self._told).T).argmax(-1) == target).mean())
            if self._telling:
                features, target = np.concatenate([features, names]), np.concatenate([target, named])
                parts = np.concatenate([parts, 1 / np.bincount(named)[named]])  # several descriptions of a label are one row together
        if self._outside:
            nothing = vectors(said, [self.rows[i] for i in self._outside], self.pad_id)
            features = np.concatenate([features, np.repeat(nothing, self.classes, axis=0)])
            target = np.concatenate([target, np.tile(np.arange(self.classes), len(self._outside))])
            parts = np.concatenate([parts, np.full(len(self._outside) * self.classes, 1 / self.classes)])
        fitted = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=500).fit(features, target, sample_weight=parts)
        weight, bias = fitted.coef_, fitted.intercept_
        if self.classes == 2:  # one line, for the difference of the two
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight.astype(np.float32), bias.astype(np.float32)

    @property
    def _telling(self) -> bool:
        """Whether descriptions say what the rows are about: right for more of them than halfway from chance to all."""
        return self._right > (1 + 1 / self.classes) / 2


def vectors(said: Forward, rows: Sequence[Mapping[str, Any]], pad_id: int) -> np.ndarray:
    """[rows, hidden] float32 of length 1."""
    found: list[Any] = [None] * len(rows)
    for index in batches(rows, BATCH):
        given: Arrays = inputs(padded([rows[i] for i in index], pad_id))
        for i, vector in zip(index, said(given)["sentence_embedding"], strict=True):
            found[i] = vector
    return np.stack(found)
