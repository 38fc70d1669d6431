"""No row is learned from: a text gets the label whose description it is most like, by the frozen base's vectors.

Yin et al., "Benchmarking zero-shot text classification" (arXiv:1909.00161), call it label-fully-unseen. What ships is an ordinary
classifier: its head is made of the vectors of the descriptions, so that a logit is 20 cosines.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgetune.data import descriptions
from edgetune.methods import Lesson
from edgetune.methods.baselines import ZERO_SHOT_SCALE, meant
from edgetune.methods.full import merge, restore, save
from edgetune.methods.linear_probe import Probe, attach, vectors
from edgetune.tasks import Forward

__all__ = ["attach", "merge", "restore", "save", "training"]


def training(lesson: Lesson) -> Descriptions:
    """What learns in the task's place."""
    rows = descriptions.rows(lesson.recipe, lesson.labels)
    encoded = lesson.task.module.encode(rows, lesson.tokenizer, max_length=lesson.max_length, labels=lesson.labels)
    return Descriptions(replace(lesson, rows=rows, examples=encoded.examples))


class Descriptions(Probe):
    """`examples`: what each label means. The head is made of them."""

    unit = "descriptions of labels"

    def __init__(self, lesson: Lesson) -> None:
        super().__init__(lesson, range(len(lesson.examples)))
        self._told = []  # they are the rows

    def _head(self, said: Forward) -> tuple[np.ndarray, np.ndarray]:
        """(weight [classes, hidden], bias [classes]) float32."""
        weight = ZERO_SHOT_SCALE * meant(vectors(said, self.rows, self.pad_id), self.rows)
        return weight, np.zeros(len(weight), dtype=np.float32)
