"""Outputs of a model as probabilities."""

from __future__ import annotations

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """[..., n] -> probabilities [..., n] float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Any shape -> probabilities of the same shape, float64."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # does not overflow
