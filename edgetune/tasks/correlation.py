"""How well predictions order rows as their scores do: Spearman's and Pearson's correlation, as scipy computes them, but 0 where nothing varies."""

from __future__ import annotations

import numpy as np


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """[n], [n] -> -1 to 1; 0 where one of them is constant, which says nothing about the other."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread > 0 else 0.0


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of the ranks, ties at their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))
