"""An encoder that learns new labels from a few rows: what it learns from is small tasks, drawn from the labels of the data.

An episode is such a task: `meta.ways` labels, `meta.shots` rows of each to learn from and as many to ask. It is learned as a user would learn
it, from the weights of the moment, and what is kept is not its answer but the direction:

reptile  towards the weights after the episode (Nichol, Achiam and Schulman, arXiv:1803.02999), which saw all of its rows
maml     the gradient at those weights of the loss on the rows that were asked (first-order MAML: arXiv:1703.03400, section 5.2)

The head of an episode begins with the means of its labels' vectors (proto-MAML, arXiv:1903.03096, section 3), so that few steps do.
Afterwards a logistic regression is the head of all labels (see `linear_probe`): the run is whole, but its use is to be started `--from`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.methods import Lesson
from edgetune.methods.device import Device
from edgetune.methods.few_shot import TEMPERATURE, attach
from edgetune.methods.full import merge, restore, save
from edgetune.methods.linear_probe import Probe
from edgetune.tasks import inputs, padded
from edgetune.tasks.text_classification import OUT_OF_SCOPE

__all__ = ["attach", "merge", "restore", "save", "training"]

HEAD_ROWS = 1000  # that the head is fitted to, of the labels in turn
HEAD_RATE = 100  # times the rate of the encoder: a new head has further to go


def training(lesson: Lesson) -> Episodes:
    """What learns in the task's place."""
    return Episodes(lesson)


class Episodes(Probe):
    """`examples`: places for episodes, as many as show each row once an epoch. What an episode is of is drawn when its turn comes, by PyTorch's
    generator, whose state a checkpoint keeps."""

    unit = "episodes"

    def __init__(self, lesson: Lesson) -> None:
        places: dict[int, list[int]] = defaultdict(list)
        for i, row in enumerate(lesson.examples):
            places[row["label"]].append(i)
        places.pop(OUT_OF_SCOPE, None)
        order = [i for rank in range(max(map(len, places.values()))) for own in places.values() for i in own[rank : rank + 1]]
        super().__init__(lesson, order[:HEAD_ROWS])
        asked, self.maml = lesson.recipe.meta, lesson.recipe.method == "maml"
        self.labels, self.shots, self.steps, self.rate = list(places.values()), asked.shots, asked.steps, asked.learning_rate
        self.ways = min(asked.ways, len(places))
        short = sum(len(own) < 2 * self.shots for own in self.labels)
        self.examples = [{"input_ids": ()}] * max(1, len(order) // (2 * self.shots * self.ways))
        progress.note(
            f"an episode: {self.ways} of {len(places)} labels, {self.shots} rows of each to learn from and {self.shots} to ask, {self.steps} steps"
            + (f"; {short} labels have fewer rows, and give half of them each" if short else "")
        )

    def gradients(self, model: PreTrainedModel, episodes: Sequence[Mapping[str, Any]], device: Device) -> float:
        """Leave in each weight's `grad` the mean over as many new episodes, and the weights as they were; the mean loss."""
        weights: list[Any] = [weight for weight in model.parameters() if weight.requires_grad]
        before = [weight.detach().clone() for weight in weights]
        found = [torch.zeros_like(weight) for weight in before]
        total = 0.0
        for _ in episodes:
            try:
                total += self._episode(model, weights, device)
                with torch.no_grad():
                    if self.maml:
                        own = [weight.grad if weight.grad is not None else torch.zeros_like(weight) for weight in weights]
                    else:
                        own = list(torch._foreach_sub(before, weights))
                    torch._foreach_add_(found, own)
            finally:
                with torch.no_grad():
                    torch._foreach_copy_(weights, before)
                for weight in weights:
                    weight.grad = None
        for weight, gradient in zip(weights, found, strict=True):
            weight.grad = gradient / len(episodes)
        return total / len(episodes)

    def _episode(self, model: PreTrainedModel, weights: list[torch.nn.Parameter], device: Device) -> float:
        """Learn one episode; its weights, and for maml the gradient of what was asked, stay in `model`. The mean loss, or that of the asked."""
        learned, asked = self._drawn()
        with torch.no_grad():
            vectors, labels = self._said(model, learned, device)
            means = torch.stack([vectors[labels == label].mean(0) for label in range(self.ways)])
        head = (means / TEMPERATURE).requires_grad_()
        groups = [{"params": weights, "lr": self.rate}, {"params": [head], "lr": HEAD_RATE * self.rate}]
        optimizer = torch.optim.Adam(groups, betas=(0.0, 0.999), fused=True)  # without momentum, as the paper has it
        parts = [learned] if self.maml else [learned, asked]
        losses = []
        for step in range(self.steps):
            losses.append(self._back(model, parts[step % len(parts)], head, device))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return self._back(model, asked, head, device) if self.maml else sum(losses) / len(losses)

    def _drawn(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """(row, label within the episode) of those to learn from and of those to ask, label by label."""
        learned, asked = [], []
        for label, which in enumerate(torch.randperm(len(self.labels))[: self.ways].tolist()):
            own = self.labels[which]
            count = min(self.shots, len(own) // 2)
            some = [(own[i], label) for i in torch.randperm(len(own))[: 2 * count].tolist()]
            learned += some[:count]
            asked += some[count:]
        return learned, asked

    def _said(self, model: PreTrainedModel, rows: Sequence[tuple[int, int]], device: Device) -> tuple[torch.Tensor, torch.Tensor]:
        """(vectors [n, hidden] float32, labels [n] int64)."""
        batch = inputs(padded([self.rows[row] for row, _ in rows], self.pad_id))
        with device.autocast(), device.attention(model, batch["input_ids"].shape[-1]):
            said = model(**{name: torch.from_numpy(array).to(device.torch) for name, array in batch.items()})
        return said["sentence_embedding"].float(), torch.tensor([label for _, label in rows], device=device.torch)

    def _back(self, model: PreTrainedModel, rows: Sequence[tuple[int, int]], head: torch.Tensor, device: Device) -> float:
        vectors, labels = self._said(model, rows, device)
        loss = cross_entropy(vectors @ head.T, labels)
        loss.backward()
        return loss.item()
