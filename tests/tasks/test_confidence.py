"""Temperature and threshold: chosen on validation, and right."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetune.tasks import Scores, confidence
from edgetune.tasks.text_classification import OUT_OF_SCOPE, softmax


def drawn(rows: int, scale: float, seed: int = 0, outside: int = 0) -> Scores:
    """Logits `scale` times as sure as they should be: targets are drawn from softmax(logits / scale)."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(size=(rows + outside, 4)) * 2
    target = np.array([chance.choice(4, p=p) for p in softmax(logits)])
    target[rows:] = OUT_OF_SCOPE
    logits[rows:] *= 0.2
    known = target != OUT_OF_SCOPE
    answers = (logits * scale).astype(np.float32)
    return Scores((known & (answers.argmax(-1) == target)).astype(float), known.astype(float), answers, target)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_temperature_undoes_false_sureness(scale: float) -> None:
    scores = drawn(4000, scale)
    chosen = confidence.fit(scores, 0.0)
    assert chosen.temperature == pytest.approx(scale, rel=0.1)
    before = confidence.measure(scores, confidence.Confidence(1.0, 0.0, ""))["expected_calibration_error"]
    after = confidence.measure(scores, chosen)["expected_calibration_error"]
    assert after < 0.03
    assert after <= before or scale == 1.0


def test_without_rows_out_of_scope_it_keeps_95_percent_of_the_right_answers() -> None:
    scores = drawn(1000, 1.0)
    chosen = confidence.fit(scores, None)
    assert scores.logits is not None
    right = softmax(scores.logits, chosen.temperature).max(-1)[scores.value > 0]
    assert (right >= chosen.reject_below).mean() == pytest.approx(0.95, abs=0.002)


def test_with_rows_out_of_scope_it_parts_them_best() -> None:
    """No other threshold keeps more of the one and rejects more of the other."""
    scores = drawn(300, 1.0, outside=100)
    chosen = confidence.fit(scores, None)
    assert scores.logits is not None and scores.target is not None
    probability = softmax(scores.logits, chosen.temperature).max(-1)
    known = scores.target != OUT_OF_SCOPE

    def balance(threshold: float) -> float:
        return float((probability[known] >= threshold).mean() + (probability[~known] < threshold).mean())

    assert balance(chosen.reject_below) == pytest.approx(max(balance(t) for t in [*probability, 0.0, 1.1]))
    measured = confidence.measure(scores, chosen)
    assert measured["out_of_scope_rejected"] > 0.5
    assert measured["out_of_scope_auroc"] > 0.7


def test_clearly_parted_rows_get_a_threshold_between_them() -> None:
    logits = np.array([[4, 0, 0]] * 8 + [[0.1, 0, 0]] * 4, dtype=np.float32)
    target = np.array([0] * 7 + [1] + [OUT_OF_SCOPE] * 4)
    scores = Scores((target == 0).astype(float), (target >= 0).astype(float), logits, target)
    chosen = confidence.fit(scores, None)
    inside, outside = softmax(logits, chosen.temperature).max(-1)[[0, -1]]
    assert outside < chosen.reject_below < inside
    assert chosen.reject_below == pytest.approx((inside + outside) / 2)


@pytest.mark.parametrize("asked", [0.0, 0.5, 1.0])
def test_the_users_threshold_is_taken_as_it_is(asked: float) -> None:
    chosen = confidence.fit(drawn(100, 1.0, outside=10), asked)
    assert chosen.reject_below == asked
    assert chosen.chosen_by == "the recipe"


def test_measure_by_hand() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.55, 0.45]])).astype(np.float32)
    target = np.array([0, 1, 0, OUT_OF_SCOPE])
    scores = Scores(np.array([1.0, 0, 1, 0]), np.array([1.0, 1, 1, 0]), logits, target)
    found = confidence.measure(scores, confidence.Confidence(1.0, 0.65, ""))
    assert found["answered"] == pytest.approx(2 / 3)
    assert found["accuracy_answered"] == 1
    assert found["expected_calibration_error"] == pytest.approx((0.1 + 0.6 + 0.3) / 3, rel=1e-5), "each row in a bin of its own"
    assert found["out_of_scope_rejected"] == 1
    assert found["out_of_scope_auroc"] == 1


def test_nothing_right_or_nothing_answered() -> None:
    logits = np.array([[3.0, 0.0]] * 3, dtype=np.float32)
    scores = Scores(np.zeros(3), np.ones(3), logits, np.array([1, 1, 1]))
    chosen = confidence.fit(scores, None)
    assert chosen.reject_below == 0
    assert np.isfinite(chosen.temperature)
    assert confidence.measure(scores, confidence.Confidence(1.0, 1.0, ""))["accuracy_answered"] == 0


@given(st.integers(2, 40), st.integers(0, 20), st.integers(0, 1000))
def test_the_threshold_is_a_probability(rows: int, outside: int, seed: int) -> None:
    chosen = confidence.fit(drawn(rows, 1.0, seed, outside), None)
    assert 0 <= chosen.reject_below <= 1
    assert 0 < chosen.temperature < 25
