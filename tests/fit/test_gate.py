"""The gate: what is lost, how sure that is, and what follows from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune import tasks
from edgetune.fit import gate
from edgetune.fit.gate import Verdict, decide
from edgetune.tasks import Scores

ACCURACY, PERPLEXITY = tasks.get("text-classification"), tasks.get("text-generation")


def right(*answers: float) -> Scores:
    return Scores(np.array(answers, dtype=float), np.ones(len(answers)))


def rows(good: int, bad: int) -> Scores:
    return right(*[1.0] * good, *[0.0] * bad)


@pytest.mark.parametrize("count", [1, 2, 10, 100, 1000])
def test_where_nothing_differs_few_rows_prove_little(count: int) -> None:
    verdict = decide(ACCURACY, rows(count, 0), rows(count, 0), 0.01)
    assert verdict.loss == 0
    assert verdict.bound == pytest.approx(1 - 0.05 ** (1 / count))
    assert verdict.proven is (count >= 299)


def test_one_row_gained_says_nothing_about_what_may_be_lost() -> None:
    base = rows(99, 1)
    assert decide(ACCURACY, base, rows(100, 0), 0.01).bound == decide(ACCURACY, base, base, 0.01).bound
    assert decide(ACCURACY, rows(70, 30), rows(100, 0), 0.01).proven, "but many do"


def test_clearly_worse_is_refused() -> None:
    verdict = decide(ACCURACY, rows(1000, 0), rows(950, 50), 0.01)
    assert verdict.loss == pytest.approx(0.05)
    assert not verdict.passed(strict=False)
    assert verdict.reason("accuracy drop", strict=False).startswith("refused: accuracy drop +0.0500 on 1000 rows")


def test_within_the_allowance_but_not_proven() -> None:
    verdict = decide(ACCURACY, rows(100, 0), rows(99, 1), 0.02)
    assert verdict.loss == pytest.approx(0.01)
    assert verdict.bound > 0.02
    assert verdict.passed(strict=False) and not verdict.passed(strict=True)
    assert "unproven" in verdict.reason("accuracy drop", strict=False)
    assert "too few to prove it" in verdict.reason("accuracy drop", strict=False)
    assert verdict.reason("accuracy drop", strict=True).startswith("refused (--strict)")


def test_proven() -> None:
    verdict = decide(ACCURACY, rows(3000, 0), rows(2990, 10), 0.01)
    assert verdict.proven and verdict.passed(strict=True)
    assert verdict.reason("accuracy drop", strict=True).startswith("proven")


def test_exactly_the_allowance_passes() -> None:
    assert Verdict(loss=0.01, bound=0.05, allowed=0.01, rows=100).passed(strict=False)
    assert Verdict(loss=0.01, bound=0.01, allowed=0.01, rows=100).proven


def test_pairs_matter() -> None:
    """The same accuracy, but on other rows: what differs within pairs is what makes it unsure."""
    one, other = right(*[1.0] * 50, *[0.0] * 50), right(*[0.0] * 50, *[1.0] * 50)
    verdict = decide(ACCURACY, one, other, 0.01)
    assert verdict.loss == 0
    assert verdict.bound > 0.1


def test_rows_out_of_scope_are_left_out() -> None:
    base = Scores(np.array([1.0, 1, 0, 0]), np.array([1.0, 1, 0, 0]))
    candidate = Scores(np.array([1.0, 0, 0, 0]), np.array([1.0, 1, 0, 0]))
    verdict = decide(ACCURACY, base, candidate, 0.01)
    assert verdict.rows == 2
    assert verdict.loss == 0.5


def test_perplexity_rises_by_the_exponential_of_the_loss() -> None:
    tokens, loss = np.array([10.0, 20, 5]), np.array([20.0, 50, 10])
    verdict = decide(PERPLEXITY, Scores(loss, tokens), Scores(loss + tokens * np.log(1.05), tokens), 0.10)
    assert verdict.loss == pytest.approx(0.05)
    assert verdict.bound == pytest.approx(0.05), "every row rose by the same"
    assert verdict.proven
    assert not decide(PERPLEXITY, Scores(loss, tokens), Scores(loss + tokens * np.log(1.2), tokens), 0.10).passed(strict=False)


def test_perplexity_that_fell_is_proven_by_few_rows() -> None:
    tokens, loss = np.full(20, 10.0), np.linspace(10, 30, 20)
    verdict = decide(PERPLEXITY, Scores(loss, tokens), Scores(loss - 1, tokens), 0.0)
    assert verdict.loss < 0 and verdict.proven


def brute(lost: str, weight: np.ndarray, base: np.ndarray, candidate: np.ndarray) -> float:
    """The 95th percentile of the loss over 4,000 resamples of the rows, in a loop."""
    chance = np.random.default_rng(1)
    found = []
    for _ in range(4000):
        pick = chance.integers(0, len(weight), len(weight))
        change = (base[pick] - candidate[pick]).sum() / weight[pick].sum()
        found.append(change if lost == "drop" else np.exp(-change) - 1)
    return float(np.quantile(found, 0.95))


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 200), st.floats(0.5, 1), st.floats(0.0, 0.3), st.integers(0, 1000))
def test_accuracy_bound_against_brute_force(count: int, quality: float, flips: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    base = (chance.random(count) < quality).astype(float)
    candidate = np.where(chance.random(count) < flips, 1 - base, base)
    verdict = decide(ACCURACY, right(*base), right(*candidate), 0.01)
    unseen = 0 if (candidate < base).any() else 1 - 0.05 ** (1 / count)
    expected = brute("drop", np.ones(count), base, candidate) + unseen
    assert verdict.loss == pytest.approx((base - candidate).mean())
    assert verdict.bound == pytest.approx(expected, abs=1.5 / count)
    assert verdict.bound >= verdict.loss


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 200), st.floats(-0.1, 0.3), st.integers(0, 1000))
def test_perplexity_bound_against_brute_force(count: int, rise: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    weight = chance.integers(1, 30, count).astype(float)
    base = weight * chance.gamma(4, 0.5, count)
    candidate = base + weight * chance.normal(rise, 0.2, count)
    verdict = decide(PERPLEXITY, Scores(base, weight), Scores(candidate, weight), 0.1)
    assert verdict.loss == pytest.approx(np.exp(candidate.sum() / weight.sum() - base.sum() / weight.sum()) - 1)
    assert verdict.bound == pytest.approx(brute("rise", weight, base, candidate), abs=0.01)


def test_the_same_rows_give_the_same_bound() -> None:
    assert len({decide(ACCURACY, rows(80, 20), rows(75, 25), 0.01).bound for _ in range(3)}) == 1


def test_the_bound_holds_as_often_as_it_says() -> None:
    """Draw rows from a world where the true drop is known: the bound is under it in about 5 % of the draws."""
    chance, truth, misses = np.random.default_rng(0), 0.04, 0
    for _ in range(200):
        lost = (chance.random(400) < truth).astype(float)
        misses += decide(ACCURACY, right(*[1.0] * 400), right(*(1 - lost)), 0.01).bound < truth
    assert 2 <= misses <= 22
    assert gate.CONFIDENCE == 0.95
