"""A training as the recipe asks for it, and its repetitions with other settings: what they share, and what each of them does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.methods import ewc, loop, mixup, pace, used_rows
from edgetune.methods.examples import Given
from edgetune.methods.model import forward
from edgetune.methods.settings import resolve
from edgetune.recipe import Recipe
from edgetune.tasks import Task, balance


def attach(recipe: Recipe, given: Given, module: ModuleType) -> PreTrainedModel:
    """The model that the method `module` trains, on its device."""
    model: PreTrainedModel = module.attach(recipe, given.labels).to(given.device.torch)
    if hasattr(module, "begin"):
        module.begin(model, given)
    set_dropout(model, given.task.dropout if recipe.adapt.dropout is None else recipe.adapt.dropout)
    return model


@dataclass(frozen=True)
class Learning:
    """What every repetition shares. `held`: what weights are held by (EWC), or None."""

    given: Given
    module: ModuleType  # of the method
    problem: loop.Problem
    held: tuple[ewc.Tensors, ewc.Tensors] | None

    def model(self, recipe: Recipe) -> PreTrainedModel:
        """Untrained."""
        return attach(recipe, self.given, self.module)

    def train(self, model: PreTrainedModel, recipe: Recipe, scratch: Path, stop: loop.Stop = loop.never) -> loop.State:
        """See `loop.train`."""
        problem, learns = self.problem, self.problem.task
        if self.held or "mixup" in recipe.augment.kinds:  # which reach for the whole embeddings
            problem = replace(problem, tokens=None)
        if self.held:
            problem = replace(problem, task=ewc.Elastic(learns, model, *self.held, recipe.continual.ewc))
        numbers = resolve(recipe, len(problem.examples))
        with _mixed(recipe, problem.task, model, problem.pad_id) as what:
            how = pace.of(recipe, model, numbers.epochs)
            return loop.train(model, replace(problem, task=what), numbers, self.given.device, scratch, stop, how)

    def learn(self, model: PreTrainedModel, recipe: Recipe, scratch: Path) -> loop.State:
        """Train to the end, and leave `model` as it answers."""
        state = self.train(model, recipe, scratch)
        if hasattr(self.problem.task, "finish"):
            self.problem.task.finish(model)
        model.eval()
        return state


def problem(recipe: Recipe, given: Given, learns: Any, examples: Sequence[Mapping[str, Any]]) -> loop.Problem:
    """What `learns` makes of `examples`, judged on validation by the task's metric."""
    task = given.task
    sign, tie = 1 if task.higher_is_better else -1, task.tie

    def evaluate(model: PreTrainedModel) -> Mapping[str, float]:
        found: Mapping[str, float] = task.module.metrics(
            learns.score(forward(model, given.device), given.splits["validation"], given.pad_id), given.labels
        )
        return found

    return loop.Problem(
        learns,
        examples,
        given.pad_id,
        evaluate,
        lambda found: (sign * found[task.metric], -found[tie]),
        (task.metric, tie),
        _drawn(recipe, task, examples),
        used_rows.tokens(examples) if learns is task.module or isinstance(learns, balance.Balanced) else None,
    )


def learner(recipe: Recipe, task: Task, examples: Sequence[Mapping[str, Any]], model: PreTrainedModel, labels: Sequence[str]) -> Any:
    """What learns in the place of the task's module, or that itself."""
    if hasattr(task.module, "training"):
        return task.module.training(examples, model)
    if recipe.adapt.class_weights == balance.NONE:
        return task.module
    balanced = balance.Balanced(task.module, examples, labels)
    least, most = (float(find([find(part) for part in balanced.weights])) for find in (np.min, np.max))
    progress.note(f"each class counts the same: a row weighs {least:.2g} to {most:.2g} (adapt.class_weights)")
    return balanced


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """One probability for every dropout of the base; an adapter keeps its own (lora.dropout)."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_" not in name:
            module.p = probability


def _drawn(recipe: Recipe, task: Task, examples: Sequence[Mapping[str, Any]]) -> loop.Draw | None:
    """What draws the rows of an epoch, where they do not all come once."""
    if (temperature := recipe.adapt.sampling_temperature) == 1:
        return None
    return lambda chance: task.module.drawn(examples, temperature, chance)  # type: ignore[no-any-return]


def _mixed(recipe: Recipe, learns: Any, model: PreTrainedModel, pad_id: int) -> Any:
    """A context in which `model` learns from rows that are mixed, where the recipe asks for it."""
    return mixup.mixed(learns, model, recipe.augment.mixup_alpha, pad_id) if "mixup" in recipe.augment.kinds else nullcontext(learns)
