"""Knowledge distillation: a student learns the teacher's answers on the task's own texts and on altered copies of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune.methods import loop, used_rows
from edgetune.methods.device import Device
from edgetune.methods.imitation import Imitation


def distil(
    student: PreTrainedModel,
    examples: Sequence[Mapping[str, Any]],
    answers: np.ndarray,
    imitation: Imitation,
    pad_id: int,
    evaluate: Callable[[PreTrainedModel], Mapping[str, float]],
    better: Callable[[Mapping[str, float]], tuple[float, float]],
    shown: Sequence[str],
    settings: loop.Settings,
    device: Device,
    scratch: Path,
) -> loop.State:
    """Train every weight of `student`, in place, to give `answers` [n, k] on `examples`; `scratch` as in `loop.train`."""
    rows = [{**example, "teacher": row} for example, row in zip(examples, answers, strict=True)]
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the teacher's answer is the regulariser
    for weight in student.parameters():
        weight.requires_grad = True
    problem = loop.Problem(imitation, rows, pad_id, evaluate, better, shown, tokens=used_rows.tokens(rows))
    moved: torch.nn.Module = student
    moved.to(device.torch)
    return loop.train(student, problem, settings, device, scratch)
