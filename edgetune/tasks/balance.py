"""Classes that count the same in the loss however rare they are: each row weighs as much as its class is rare.

The weights are scikit-learn's `compute_class_weight("balanced")`: rows / (classes x rows of the class), so that they are 1 on average and
the loss keeps its scale (King and Zeng 2001, "Logistic regression in rare events data").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

NONE, BALANCED = "none", "balanced"


def weights(classes: np.ndarray, count: int) -> np.ndarray:
    """[count] float32 for the indices of `classes` [n]; 1 for a class that is not among them."""
    from sklearn.utils.class_weight import compute_class_weight

    found = np.ones(count, dtype=np.float32)
    known = np.unique(classes)
    found[known] = compute_class_weight("balanced", classes=known, y=classes)
    return found


def of(weights: np.ndarray, classes: torch.Tensor) -> torch.Tensor:
    """The weights of `classes`, in their shape."""
    import torch

    return torch.from_numpy(weights).to(classes.device)[classes]


class Balanced:
    """The task `module` while a model learns it from `examples`, with the weights of its classes."""

    def __init__(self, module: ModuleType, examples: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> None:
        self.collate, self.score, self._loss = module.collate, module.score, module.loss
        self.weights: tuple[np.ndarray, ...] = module.weights(examples, labels)

    def loss(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        found: torch.Tensor = self._loss(outputs, batch, smoothing, self.weights)
        return found
