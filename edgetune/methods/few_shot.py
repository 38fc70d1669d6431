"""Few rows a label: the encoder learns which texts are alike from pairs of them, then a logistic regression on its vectors is the head.

Two steps, as SetFit has them (Tunstall et al., arXiv:2209.11055); n rows of a label make n (n - 1) / 2 pairs, so that few rows go far. A
step takes a batch of pairs of a label each and compares every text in it with all the others: the supervised contrastive loss (Khosla et
al., arXiv:2004.11362, eq. 2), which needs no pairs of unlike texts. The base's vectors are means over tokens, as sentence encoders are
trained. Rows out of scope are like nothing: they only push away, and the head learns the uniform distribution for them.

What few rows teach is kept by half: the weights that ship are the mean of those before and after (WiSE-FT, Wortsman et al., arXiv:2109.01903).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune.methods import Lesson
from edgetune.methods.full import merge, restore, save
from edgetune.methods.linear_probe import Probe
from edgetune.methods.model import load_base
from edgetune.recipe import Recipe
from edgetune.tasks import padded
from edgetune.tasks.text_classification import OUT_OF_SCOPE

__all__ = ["attach", "merge", "restore", "save", "training"]

TEMPERATURE = 0.1  # of the cosines in the loss
MOST_PAIRS, LEAST_PAIRS = 2500, 32  # of all labels together, but so many that each has LEAST_PAIRS where its rows make them
MOST_ROWS = 4000  # that the head is fitted to
KEPT = 0.5  # of what the pairs changed in the weights


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base with a head on the mean of its tokens. All but the head is trained; that is fitted afterwards."""
    model = load_base(recipe, labels, architecture="PooledClassifier")
    model.classifier.requires_grad_(False)
    return model


def training(lesson: Lesson) -> Pairs:
    """What learns in the task's place."""
    return Pairs(lesson)


def _most(labels: int) -> int:
    return max(LEAST_PAIRS, MOST_PAIRS // labels)


class Pairs(Probe):
    """`examples`: pairs of rows of one label (of OUT_OF_SCOPE too), as a batch takes them. The head is a probe of the encoder that they teach."""

    unit = "pairs"

    def __init__(self, lesson: Lesson) -> None:
        rows, chance = lesson.examples, random.Random(f"{lesson.recipe.seed}:pairs")
        labels = [row["label"] for row in rows]
        known, examples = sorted(set(labels)), []
        for label in known:
            own = [i for i, other in enumerate(labels) if other == label]
            for pair in _drawn(own, _most(len(known)), chance):
                longest = max((rows[i]["input_ids"] for i in pair), key=len)  # by which batches of like length are made
                examples.append({"input_ids": longest, "label": label, "pair": pair})
        inside = [i for i, label in enumerate(labels) if label != OUT_OF_SCOPE]
        chance.shuffle(inside)
        super().__init__(lesson, inside[:MOST_ROWS])
        self.examples, self.recipe, self.labels = examples, lesson.recipe, lesson.labels

    def collate(self, pairs: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
        """`input_ids` [2 b, s], the two texts of a pair one after the other; `labels` and `rows` (which row it is) [2 b] int64."""
        places = [i for pair in pairs for i in pair["pair"]]
        found = padded([self.rows[i] for i in places], pad_id)
        return {**found, "labels": np.array([self.rows[i]["label"] for i in places]), "rows": np.array(places)}

    def loss(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        """How unlikely each text finds those of its own label among all others of the batch, by their cosines, on average."""
        vectors, labels, rows = outputs["sentence_embedding"].float(), batch["labels"], batch["rows"]
        itself = rows[:, None] == rows[None, :]
        alike = (labels[:, None] == labels[None, :]) & ~itself & (labels != OUT_OF_SCOPE)[:, None]
        chances = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(-1)
        count = alike.sum(-1)
        each = -chances.masked_fill(~alike, 0.0).sum(-1) / count.clamp(min=1)
        return each.sum() / (count > 0).sum().clamp(min=1)

    def finish(self, model: Any) -> None:
        """Go back half of the way to the base, and put the head for that into `model`."""
        base = attach(self.recipe, self.labels).to(model.device)
        with torch.no_grad():
            for weight, before in zip(model.base_model.parameters(), base.base_model.parameters(), strict=True):
                weight.lerp_(before, 1 - KEPT)
        super().finish(model)


def _drawn(own: Sequence[int], most: int, chance: random.Random) -> list[tuple[int, int]]:
    """All pairs of `own`, or `most` different ones."""
    if comb(len(own), 2) <= most:
        return list(combinations(own, 2))
    found: dict[tuple[int, int], None] = {}
    while len(found) < most:
        first, second = chance.sample(own, 2)
        found.setdefault((min(first, second), max(first, second)))
    return list(found)
