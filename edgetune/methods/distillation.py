"""A model learns what adapted ones answer, on the training texts, on altered copies of them and on texts without labels.

Hinton et al., arXiv:1503.02531. One larger teacher is made small; several of the same size (runs with other seeds) answer with the mean of
their logits, and one model can learn what only all of them knew (Allen-Zhu and Li, arXiv:2012.09816).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from edgetune import progress, tasks
from edgetune.data import noise, unlabelled
from edgetune.errors import RecipeError
from edgetune.methods import Lesson, teachers
from edgetune.methods.full import merge, restore, save
from edgetune.methods.imitation import Imitation, teach
from edgetune.methods.model import LONGEST, load_base, load_merged, tokenizer_in
from edgetune.recipe import Recipe
from edgetune.tasks import Task

__all__ = ["attach", "merge", "restore", "save", "training"]


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base with a new head; every weight is trained."""
    return load_base(recipe, labels)


def training(lesson: Lesson) -> Answers:
    """What learns in the task's place. The teachers' answers are kept for a run that goes on."""
    recipe, task = lesson.recipe, lesson.task
    own = [tasks.asked(row, task) for row in lesson.rows]
    copies = noise.augment(own, recipe.distillation.copies * len(own), recipe.seed, task.markers)
    more = _unlabelled(recipe, own, task)
    asked = list(dict.fromkeys([*own, *copies, *more]))
    progress.note(
        f"the texts: {len(own):,} of the training rows, {len(copies):,} altered, {len(more):,} unlabelled; {len(asked):,} different"
    )
    kept = lesson.scratch / "answers.npy"
    if not kept.exists():
        np.save(kept, np.mean([_answers(teacher, asked, lesson) for teacher in teachers.named(recipe)], axis=0))
    [output] = task.outputs
    return Answers(lesson, _encoded(asked, lesson.tokenizer, lesson.max_length), np.load(kept, allow_pickle=False), output)


class Answers(Imitation):
    """`examples`: texts, each with what the teachers answer to it."""

    unit = "texts"

    def __init__(self, lesson: Lesson, examples: Sequence[Mapping[str, Any]], answers: np.ndarray, output: str) -> None:
        super().__init__(output, lesson.task.imitates, lesson.recipe.distillation.temperature)
        self.examples = [{**example, "teacher": answer} for example, answer in zip(examples, answers, strict=True)]
        self.score = lesson.task.module.score


def _unlabelled(recipe: Recipe, own: Sequence[Sequence[str]], task: Task) -> list[tuple[str]]:
    if recipe.distillation.unlabelled and (len(own[0]) > 1 or task.markers):
        what = "marked entities" if task.markers else "pairs of texts"
        raise RecipeError(f"distillation.unlabelled holds plain texts, but the rows are {what}", mend="leave distillation.unlabelled out")
    return [(text,) for text in unlabelled.texts(recipe, "distillation.unlabelled")]


def _answers(teacher: teachers.Teacher, asked: Sequence[Sequence[str]], lesson: Lesson) -> np.ndarray:
    """Logits [texts, labels] float32, in the order of the data's labels."""
    told = f": test {lesson.task.metric} {teacher.test[lesson.task.metric]:.4f}" if teacher.test else ""
    progress.note(f"teacher {teacher.folder}{told}")
    model, tokenizer = load_merged(teacher.folder, lesson.task.name), tokenizer_in(teacher.folder)
    longest = min(LONGEST, model.config.max_position_embeddings, tokenizer.model_max_length)
    [output] = lesson.task.outputs
    examples = _encoded(asked, tokenizer, longest)
    return teach(model, examples, output, tokenizer.pad_token_id, lesson.device)[:, teacher.order(lesson.labels)]


def _encoded(asked: Sequence[Sequence[str]], tokenizer: Any, longest: int) -> list[dict[str, Any]]:
    return tasks.tokens(tokenizer, *map(list, zip(*asked, strict=True)), max_length=longest)[0]
