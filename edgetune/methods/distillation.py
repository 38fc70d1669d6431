"""A model learns what adapted ones answer, on the training texts, on altered copies of them and on texts without labels.

Hinton et al., arXiv:1503.02531. One larger teacher is made small; several of the same size (runs with other seeds) answer with the mean of
their logits, and one model can learn what only all of them knew (Allen-Zhu and Li, arXiv:2012.09816).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from edgetune import tasks
from edgetune.methods import Lesson, teachers
from edgetune.methods.full import merge, restore, save
from edgetune.methods.imitation import Imitation, encoded, output, texts, together
from edgetune.methods.model import load_base
from edgetune.recipe import Recipe

__all__ = ["attach", "merge", "restore", "save", "training"]


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base with a new head; every weight is trained."""
    return load_base(recipe, labels)


def training(lesson: Lesson) -> Answers:
    """What learns in the task's place. The teachers' answers are kept for a run that goes on."""
    recipe, task = lesson.recipe, lesson.task
    taught_by = teachers.named(recipe)
    asked, _ = texts(recipe, "distillation", [tasks.asked(row, task) for row in lesson.rows], taught_by[0].folder)
    kept, unfinished = lesson.scratch / "answers.npy", lesson.scratch / "unfinished.npy"
    if not kept.exists():
        np.save(unfinished, together(taught_by, asked, task, lesson.labels, lesson.device))
        unfinished.replace(kept)
    return Answers(lesson, encoded(asked, lesson.tokenizer, lesson.max_length), np.load(kept, allow_pickle=False))


class Answers(Imitation):
    """`examples`: texts, each with what the teachers answer to it."""

    unit = "texts"

    def __init__(self, lesson: Lesson, examples: Sequence[Mapping[str, Any]], answers: np.ndarray) -> None:
        super().__init__(output(lesson.task), lesson.task.imitates, lesson.recipe.distillation.temperature)
        self.examples = [{**example, "teacher": answer} for example, answer in zip(examples, answers, strict=True)]
        self.score = lesson.task.module.score
