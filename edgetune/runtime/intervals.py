"""Intervals of what was timed in turns: medians, and the ratio of two programs that took the turns together.

Passes of one turn are alike, turns differ (another process, another moment), so both are drawn again: the turns, one fewer than
there are (Rao & Wu 1988, doi:10.1080/01621459.1988.10478591: with few turns the plain bootstrap is too sure), and within each the
passes (Davison & Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000
LEVELS = (2.5, 97.5)  # percentiles of the resamples: 95 %
Interval = tuple[float, float]


def median(turns: Sequence[np.ndarray]) -> Interval:
    """95 % interval of the median over all passes. `turns`: times [passes] of each."""
    rng = np.random.default_rng(0)
    drawn = np.concatenate([_passes(turns, chosen, rng) for chosen in _turns(len(turns), rng)], axis=1)
    return _interval(np.nanmedian(drawn, axis=1))


def ratio(turns: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> tuple[float, Interval]:
    """How many times as long as the reference: the geometric mean over the turns of the ratio of medians, and its 95 % interval.

    Turn i of both ran side by side, so what disturbed one disturbed the other. Raises ValueError when the numbers of turns differ.
    """
    logs = [np.log(np.median(a)) - np.log(np.median(b)) for a, b in zip(turns, reference, strict=True)]
    rng = np.random.default_rng(0)
    drawn = [
        np.log(np.nanmedian(_passes(turns, chosen, rng), axis=1)) - np.log(np.nanmedian(_passes(reference, chosen, rng), axis=1))
        for chosen in _turns(len(turns), rng)
    ]
    return float(np.exp(np.mean(logs))), _interval(np.exp(np.mean(drawn, axis=0)))


def _turns(count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices of turns [drawn, RESAMPLES]."""
    return rng.integers(count, size=(max(1, count - 1), RESAMPLES))


def _passes(turns: Sequence[np.ndarray], chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Passes of the `chosen` turn [RESAMPLES], drawn with replacement: [RESAMPLES, most passes], NaN after those that the turn has."""
    counts = np.array([len(turn) for turn in turns])
    padded = np.full((len(turns), counts.max()), np.nan)
    for row, turn in zip(padded, turns, strict=True):
        row[: len(turn)] = turn
    here = counts[chosen][:, None]
    drawn = padded[chosen[:, None], (rng.random((len(chosen), counts.max())) * here).astype(int)]
    return np.where(np.arange(counts.max()) < here, drawn, np.nan)


def _interval(values: np.ndarray) -> Interval:
    low, high = np.percentile(values, LEVELS)
    return float(low), float(high)
