"""How well predictions order rows as their scores do: Spearman's and Pearson's correlation, but 0 where nothing varies.

numpy's and not scipy's, whose tests of significance are computed with each: the gate resamples thousands of times.
"""

from __future__ import annotations

import numpy as np


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """[n], [n] -> -1 to 1; 0 where one of them is constant, which says nothing about the other."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nan_to_num(np.corrcoef(a, b)[0, 1]))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of the ranks, ties at their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))
