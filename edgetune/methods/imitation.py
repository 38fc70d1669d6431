"""What a model learns that imitates another one, and the other's answers.

Hinton et al., arXiv:1503.02531: KL divergence between the two softmaxes at a temperature; between two yes-or-nos a label where there are
several; the squared distance of numbers and of vectors. The texts need no labels, so altered copies and a user's unlabelled rows serve as
well as training rows (TinyBERT, arXiv:1909.10351, section 4.2, calls it data augmentation).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedModel

from edgetune import progress, tasks
from edgetune.data import noise, unlabelled
from edgetune.data.noise import Asked
from edgetune.errors import RecipeError
from edgetune.methods import near_words
from edgetune.methods.device import Device
from edgetune.methods.model import LONGEST, forward, load_merged, tokenizer_in
from edgetune.methods.teachers import Teacher
from edgetune.recipe import Recipe
from edgetune.tasks import Task, batches, padded

BATCH = 64  # of the teacher


def _classes(ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """T^2 KL(teacher || student) at temperature T; the factor keeps the gradient's size."""
    ours, theirs = ((values / temperature).log_softmax(-1) for values in (ours, theirs))
    return torch.nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * temperature**2


def _labels(ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same of a yes and a no for each label, the mean over the labels."""
    ours, theirs = (torch.stack([values, torch.zeros_like(values)], -1).flatten(0, 1) for values in (ours, theirs))
    return _classes(ours, theirs, temperature)


def _numbers(ours: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """The squared distance, the mean over the batch."""
    return (ours - theirs).square().sum(-1).mean()


DISTANCES = {"classes": _classes, "labels": _labels, "numbers": _numbers}  # see `Task.imitates`


@dataclass(frozen=True)
class Imitation:
    """What `loop.train` asks of a task: batches with the teacher's answers in them, and the distance to those.

    `output`: name of the model's; `way`: a row of DISTANCES.
    """

    output: str
    way: str
    temperature: float

    def collate(self, examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
        return {
            **padded(examples, pad_id),
            "labels": np.zeros(len(examples), dtype=np.int64),  # every row is learned from
            "teacher": np.stack([example["teacher"] for example in examples]),
        }

    def loss(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        """The distance of two answers [b, k]."""
        return DISTANCES[self.way](outputs[self.output].float(), batch["teacher"].float(), self.temperature)


def texts(recipe: Recipe, key: str, own: Sequence[Asked], teacher: Path) -> tuple[list[Asked], dict[str, int]]:
    """(the different texts to learn from: `own`, altered copies and unlabelled ones; how many of each), as the recipe's section `key` says:
    distillation or compress. Which words are near is what the model in the folder `teacher` holds for near. Raises RecipeError for unlabelled
    texts where rows are more than a text."""
    section, markers = getattr(recipe, key), tasks.get(recipe.task).markers
    if section.unlabelled and (len(own[0]) > 1 or markers):
        what = "marked entities" if markers else "pairs of texts"
        raise RecipeError(f"{key}.unlabelled holds plain texts, but this model reads {what}", mend=f"leave {key}.unlabelled out")
    near: Mapping[str, Sequence[str]] = {}
    if section.copies:
        words: Any = load_merged(teacher, recipe.task).get_input_embeddings().weight
        near = near_words.find(itertools.chain.from_iterable(own), AutoTokenizer.from_pretrained(teacher), words)
    copies = noise.augment(own, section.copies * len(own), recipe.seed, markers, near)
    more = [(text,) for text in unlabelled.texts(recipe, f"{key}.unlabelled")]
    every = list(dict.fromkeys([*own, *copies, *more]))
    progress.note(
        f"{len(every):,} texts to learn from: {len(own):,} of the training rows, {len(copies):,} altered, {len(more):,} unlabelled"
    )
    return every, {"texts": len(every), "training": len(own), "altered": len(copies), "unlabelled": len(more)}


def encoded(asked: Sequence[Sequence[str]], tokenizer: Any, longest: int) -> list[dict[str, Any]]:
    return tasks.tokens(tokenizer, *map(list, zip(*asked, strict=True)), max_length=longest)[0]


def output(task: Task) -> str:
    """The name of the one output that is imitated."""
    [name] = task.outputs
    return name


def teach(teacher: PreTrainedModel, examples: Sequence[Mapping[str, Any]], output: str, pad_id: int, device: Device) -> np.ndarray:
    """The teacher's answers [n, k] float32 on `examples`, its `output`, in the device's training precision."""
    model: torch.nn.Module = teacher
    run = forward(model.to(device.torch).eval(), device)
    answers: np.ndarray | None = None
    with progress.bar("the teacher's answers", len(examples)) as bar:
        for index in batches(examples, BATCH):
            answer = run(padded([examples[i] for i in index], pad_id))[output]
            if answers is None:
                answers = np.empty((len(examples), answer.shape[-1]), dtype=np.float32)
            answers[index] = answer
            bar.advance(len(index))
    assert answers is not None, "no texts"
    return answers


def together(found: Sequence[Teacher], asked: Sequence[Sequence[str]], task: Task, labels: Sequence[str], device: Device) -> np.ndarray:
    """The mean of what the teachers answer [texts, labels] float32, in the order of `labels`."""
    answers = []
    for teacher in found:
        order = teacher.order(labels)
        progress.note(f"teacher {teacher.folder}" + (f": test {task.metric} {teacher.test[task.metric]:.4f}" if teacher.test else ""))
        model, tokenizer = load_merged(teacher.folder, task.name), tokenizer_in(teacher.folder)
        longest = min(LONGEST, model.config.max_position_embeddings, tokenizer.model_max_length)
        answers.append(teach(model, encoded(asked, tokenizer, longest), output(task), tokenizer.pad_token_id, device)[:, order])
    return np.mean(answers, axis=0)
