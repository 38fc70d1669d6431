"""May this candidate ship? Decided on validation rows, in pairs with the float model, on the one-sided 95 % bootstrap bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetune.tasks import Scores, Task

CONFIDENCE = 0.95
ONE_SIDED = 1.645  # standard errors that the bound lies over the loss
RESAMPLES = 2000


@dataclass(frozen=True)
class Verdict:
    """`loss`: what was lost on these rows (accuracy: absolute drop; perplexity: relative rise); `bound`: what the loss is under with 95 %
    confidence, the smallest loss that these rows can prove; `allowed`: what the user accepts."""

    loss: float
    bound: float
    allowed: float
    rows: int

    @property
    def proven(self) -> bool:
        return self.bound <= self.allowed

    @property
    def disproven(self) -> bool:
        """Over what is allowed with 95 % confidence: the interval seen from its other end."""
        return 2 * self.loss - self.bound > self.allowed

    @property
    def likely(self) -> bool:
        """Within what is allowed by one standard error (Breiman et al. 1984, section 3.4.3): a bound of 84 %, for choosing among many."""
        return self.loss + (self.bound - self.loss) / ONE_SIDED <= self.allowed

    def passed(self, strict: bool) -> bool:
        return self.proven or (not strict and self.loss <= self.allowed)

    def reason(self, what: str, strict: bool) -> str:
        numbers = f"{what} {self.loss:+.4f} on {self.rows} rows, under {self.bound:.4f} with 95 % confidence; allowed {self.allowed:.4f}"
        if self.proven:
            return f"proven: {numbers}"
        if self.loss > self.allowed:
            return f"refused: {numbers}"
        return f"{'refused (--strict)' if strict else 'unproven'}: {numbers}; the rows are too few to prove it"


def decide(task: Task, base: Scores, candidate: Scores, allowed: float) -> Verdict:
    """Compare `candidate` with `base`, row by row, on the same rows."""
    rows = np.flatnonzero(base.weight + candidate.weight)
    lost = lost_by(task, base.take(rows), candidate.take(rows))
    return Verdict(
        loss=float(lost(np.arange(len(rows)))),
        bound=_bound(lost, base.take(rows), candidate.take(rows), task.higher_is_better),
        allowed=allowed,
        rows=len(rows),
    )


def lost_by(task: Task, base: Scores, candidate: Scores) -> Callable[..., np.ndarray]:
    """How much of the metric `candidate` loses on the rows of an index [..., n]: an absolute drop, or the relative rise of a perplexity."""
    quality: Any = getattr(task.module, "quality", None)

    def by_rows(index: np.ndarray, axis: int = -1) -> np.ndarray:
        def one(some: np.ndarray) -> Any:
            return quality(base.take(some)) - quality(candidate.take(some))

        return np.asarray(np.apply_along_axis(one, axis, index))

    def drop(index: np.ndarray, axis: int = -1) -> np.ndarray:
        before, after = (_share(scores, index, axis) for scores in (base, candidate))
        return before - after

    def rise(index: np.ndarray, axis: int = -1) -> np.ndarray:
        """exp of the rise of the mean negative log-likelihood, less one."""
        return np.expm1((candidate.value - base.value)[index].sum(axis=axis) / base.weight[index].sum(axis=axis))

    return by_rows if quality else drop if task.higher_is_better else rise


def _share(scores: Scores, index: np.ndarray, axis: int) -> np.ndarray:
    """sum(value) / sum(weight); 0 where nothing has weight."""
    value, weight = scores.value[index].sum(axis=axis), scores.weight[index].sum(axis=axis)
    return np.divide(value, weight, out=np.zeros_like(value), where=weight > 0)


def _bound(lost: Callable[..., np.ndarray], base: Scores, candidate: Scores, drops: bool) -> float:
    """Upper end of the one-sided paired bootstrap interval.

    Resampling cannot show what these rows do not hold: where no right answer was lost, 1 - 0.05^(1/n) is added (the "rule of three").
    """
    from scipy.stats import bootstrap

    rows = len(base.value)
    nothing_seen = float(1 - (1 - CONFIDENCE) ** (1 / max(1, rows)))
    same = np.array_equal(base.value, candidate.value) and np.array_equal(base.weight, candidate.weight)
    if same or rows < 2:
        return nothing_seen
    found = bootstrap(
        (np.arange(rows),),
        lost,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        alternative="less",
        method="percentile",
        rng=np.random.default_rng(0),
    )
    unseen = nothing_seen if drops and not (candidate.value < base.value).any() else 0.0
    return float(found.confidence_interval.high) + unseen
