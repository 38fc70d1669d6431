"""Elastic weight consolidation (Kirkpatrick et al., arXiv:1612.00796): weights that the old task needs are held near where they were.

To the loss comes strength / 2 * sum F_i (w_i - w*_i)^2, where w* are the weights before, and F is the diagonal of the Fisher information on
rows of the old task: the mean square of the gradient of a row's loss (its own answer, so the empirical Fisher), scaled so that its
largest entry is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from edgetune import data, progress
from edgetune.data.earlier import replayed
from edgetune.methods import continual
from edgetune.methods.device import Device
from edgetune.methods.examples import encode
from edgetune.methods.model import load_merged
from edgetune.recipe import Recipe
from edgetune.tasks import Task, inputs

ROWS = 128  # of the old task, that the Fisher information is estimated on

Tensors = dict[str, torch.Tensor]


def fisher(model: torch.nn.Module, task: Any, examples: Sequence[Mapping[str, Any]], pad_id: int, device: Device) -> Tensors:
    """Weight by name -> its Fisher information, float32 in the weight's shape, the largest 1; from one row at a time."""
    found = {name: torch.zeros_like(weight) for name, weight in model.named_parameters()}
    with progress.bar("elastic weights", len(examples)) as bar:
        for example in examples:
            batch = {name: torch.from_numpy(array).to(device.torch) for name, array in task.collate([example], pad_id).items()}
            task.loss(model(**inputs(batch)), batch).backward()
            for name, weight in model.named_parameters():
                if weight.grad is not None:
                    found[name].addcmul_(weight.grad, weight.grad)
                    weight.grad = None
            bar.advance(1)
    largest = max(float(values.max()) for values in found.values())
    return {name: values / largest for name, values in found.items()} if largest else found


def needed(recipe: Recipe, task: Task, tokenizer: Any, longest: int, device: Device) -> tuple[Tensors, Tensors]:
    """The weights of the run that is continued, by name, and how much its rows need each; see above."""
    run = continual.learned(recipe)
    model: Any = load_merged(run.merged.path, recipe.task)
    model.to(device.torch)
    rows = replayed(data.rows(run.dataset.path, "train"), ROWS, recipe.seed)
    examples = encode(task, rows, tokenizer, longest, run.merged.facts["labels"], "old train")
    needs = fisher(model, task.module, examples, tokenizer.pad_token_id, device)
    return {name: weight.detach() for name, weight in model.named_parameters()}, needs


class Elastic:
    """What `learns`, while the trained weights of `model` are held near those `before`, each as strongly as its `needs` say."""

    def __init__(self, learns: Any, model: torch.nn.Module, before: Tensors, needs: Tensors, strength: float) -> None:
        self.collate, self._learns, self._strength = learns.collate, learns, strength
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad and name in before}
        self._held = [(weight, before[name], needs[name]) for name, weight in trained.items()]

    def loss(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        loss: torch.Tensor = self._learns.loss(outputs, batch, smoothing)
        return loss + self._strength / 2 * self.distance()

    def distance(self) -> torch.Tensor:
        """How far the weights went, as far as the old task needs them; lines of new labels are free."""
        parts = [(need * (weight[: len(old)] - old).square()).sum() for weight, old, need in self._held]
        return torch.stack(parts).sum()
