"""Knowledge distillation: a student learns the teacher's logits on the task's own texts and on altered copies of them.

Hinton et al., arXiv:1503.02531: KL divergence between the two softmaxes at a temperature. The texts need no labels, so altered copies
and a user's unlabelled rows serve as well as training rows (TinyBERT, arXiv:1909.10351, section 4.2, calls it data augmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.methods import loop
from edgetune.methods.device import Device
from edgetune.methods.model import forward
from edgetune.tasks import batches, padded

BATCH = 64  # of the teacher


@dataclass(frozen=True)
class Imitation:
    """What `loop.train` asks of a task: batches with the teacher's logits in them, and the distance to those."""

    temperature: float

    def collate(self, examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
        return {
            **padded(examples, pad_id),
            "labels": np.zeros(len(examples), dtype=np.int64),  # every row is learned from
            "teacher": np.stack([example["teacher"] for example in examples]),
        }

    def loss(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        """T^2 KL(teacher || student) at temperature T, logits [b, classes]; the factor keeps the gradient's size."""
        ours, theirs = (values.float().div(self.temperature).log_softmax(-1) for values in (outputs["logits"], batch["teacher"]))
        return torch.nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * self.temperature**2


def teach(teacher: PreTrainedModel, examples: Sequence[Mapping[str, Any]], pad_id: int, device: Device) -> np.ndarray:
    """The teacher's logits [n, classes] float32 on `examples`, in the device's training precision."""
    model: torch.nn.Module = teacher
    run = forward(model.to(device.torch).eval(), device)
    logits: np.ndarray | None = None
    with progress.bar("the teacher's answers", len(examples)) as bar:
        for index in batches(examples, BATCH):
            answer = run(padded([examples[i] for i in index], pad_id))["logits"]
            if logits is None:
                logits = np.empty((len(examples), answer.shape[-1]), dtype=np.float32)
            logits[index] = answer
            bar.advance(len(index))
    assert logits is not None, "no texts"
    return logits


def distil(
    student: PreTrainedModel,
    examples: Sequence[Mapping[str, Any]],
    logits: np.ndarray,
    pad_id: int,
    evaluate: Callable[[PreTrainedModel], Mapping[str, float]],
    better: Callable[[Mapping[str, float]], tuple[float, float]],
    shown: Sequence[str],
    settings: loop.Settings,
    temperature: float,
    device: Device,
    scratch: Path,
) -> loop.State:
    """Train every weight of `student`, in place, to give `logits` [n, classes] on `examples`; `scratch` as in `loop.train`."""
    rows = [{**example, "teacher": row} for example, row in zip(examples, logits, strict=True)]
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the teacher's answer is the regulariser
    for weight in student.parameters():
        weight.requires_grad = True
    problem = loop.Problem(Imitation(temperature), rows, pad_id, evaluate, better, shown)
    moved: torch.nn.Module = student
    moved.to(device.torch)
    return loop.train(student, problem, settings, device, scratch)
