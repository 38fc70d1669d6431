"""May this candidate ship? Decided on validation rows, in pairs with the float model, on the one-sided 95 % bootstrap bound."""

from __future__ import annotations

from dataclasses import dataclass

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
    rows = np.flatnonzero(base.weight)
    weight, ours, theirs = base.weight[rows], base.value[rows], candidate.value[rows]
    lost = _drop if task.higher_is_better else _rise
    return Verdict(
        loss=float(lost(weight, ours, theirs)),
        bound=_bound(lost, weight, ours, theirs),
        allowed=allowed,
        rows=len(rows),
    )


def _drop(weight: np.ndarray, base: np.ndarray, candidate: np.ndarray, axis: int = -1) -> np.ndarray:
    """Absolute drop of a mean."""
    return (base - candidate).sum(axis=axis) / weight.sum(axis=axis)


def _rise(weight: np.ndarray, base: np.ndarray, candidate: np.ndarray, axis: int = -1) -> np.ndarray:
    """Relative rise of the perplexity: exp of the rise of the mean negative log-likelihood, less one."""
    return np.expm1((candidate - base).sum(axis=axis) / weight.sum(axis=axis))


def _bound(lost: object, weight: np.ndarray, base: np.ndarray, candidate: np.ndarray) -> float:
    """Upper end of the one-sided paired bootstrap interval.

    Resampling cannot show what these rows do not hold: where no right answer was lost, 1 - 0.05^(1/n) is added (the "rule of three").
    """
    from scipy.stats import bootstrap

    nothing_seen = float(1 - (1 - CONFIDENCE) ** (1 / len(weight)))
    if np.array_equal(base, candidate) or len(weight) < 2:
        return nothing_seen
    found = bootstrap(
        (weight, base, candidate),
        lost,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=100,
        confidence_level=CONFIDENCE,
        alternative="less",
        method="percentile",
        rng=np.random.default_rng(0),
    )
    unseen = nothing_seen if lost is _drop and not (candidate < base).any() else 0.0
    return float(found.confidence_interval.high) + unseen
