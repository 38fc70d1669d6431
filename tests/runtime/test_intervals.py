"""Intervals: they hold the truth about as often as they say, also where turns differ; and the timing loop that feeds them."""

import inspect

import numpy as np
import pytest

from edgetune.runtime import intervals, timing, worker


def turns(random, count, passes=60, centre=1.0, between=0.1, within=0.3, shared=None) -> list[np.ndarray]:
    """Log-normal passes around `centre`, each turn shifted; `shared` shifts [count] hit whoever runs then."""
    moved = random.normal(0, between, count) + (np.zeros(count) if shared is None else shared)
    return [centre * np.exp(random.normal(move, within, passes)) for move in moved]


@pytest.mark.parametrize(("count", "between"), [(1, 0.0), (5, 0.0), (5, 0.1), (10, 0.1)])
def test_the_interval_of_the_median_holds_the_truth(count, between):
    random = np.random.default_rng(count)
    held = 0
    for _ in range(200):
        low, high = intervals.median(turns(random, count, between=between))
        held += low <= 1.0 <= high
    assert held >= 172  # 86 %: five turns cannot give the nominal 95 %


def test_turns_that_differ_widen_the_interval():
    random = np.random.default_rng(0)
    same, other = (np.mean([np.ptp(intervals.median(turns(random, 5, between=between))) for _ in range(20)]) for between in (0.0, 0.3))
    assert other > 2 * same


def test_the_ratio_holds_the_truth_and_pairing_removes_what_hits_both():
    random = np.random.default_rng(3)
    held, widths = 0, []
    for _ in range(200):
        shared = random.normal(0, 0.7, 5)  # a neighbour that doubles the times of a turn, of both
        a, b = (turns(random, 5, centre=centre, between=0.02, shared=shared) for centre in (0.4, 1.0))
        value, (low, high) = intervals.ratio(a, b)
        assert low <= value <= high
        held += low <= 0.4 <= high
        widths.append(high / low)
    assert held >= 180
    assert np.median(widths) < 1.35  # without pairing it would be about 3


def test_a_ratio_to_itself_is_one_and_inverts():
    random = np.random.default_rng(4)
    a, b = turns(random, 3), turns(random, 3, centre=3.0)
    assert intervals.ratio(a, a)[0] == pytest.approx(1.0)
    assert intervals.ratio(a, b)[0] == pytest.approx(1 / intervals.ratio(b, a)[0])
    with pytest.raises(ValueError):
        intervals.ratio(a, b[:2])


def test_turns_of_unequal_length_and_single_passes():
    assert intervals.median([np.array([2.0])]) == (2.0, 2.0)
    low, high = intervals.median([np.array([1.0]), np.full(50, 3.0)])
    assert 1.0 <= low <= high == 3.0
    assert intervals.ratio([np.array([2.0])], [np.array([4.0, 4.0])]) == (pytest.approx(0.5), pytest.approx((0.5, 0.5)))


def test_warm_up_ends_when_times_are_steady_and_is_capped(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def costs(times):
        upcoming = iter(times)

        def run(_):
            clock[0] += next(upcoming) / 1000

        return run

    found = timing.passes(costs([9.0] * 5 + [5.0] * 5 + [2.0] * 100), [0], runs=20, seconds=10)
    assert (found["warm_up"], found["steady"]) == (20, True)  # 9, 5, 2, 2
    assert found["ms"] == pytest.approx([2.0] * 20)
    found = timing.passes(costs(100 * 0.8 ** (n // 5) for n in range(200)), [0], runs=5, seconds=10)
    assert (found["warm_up"], found["steady"], len(found["ms"])) == (50, False, 5)
    found = timing.passes(costs([1000.0] * 50), [0], runs=5, seconds=3)  # a slow model: a third of the time, then the time
    assert (found["warm_up"], len(found["ms"])) == (5, 3)


def test_inputs_take_turns_and_batches_go_round():
    seen: list[list[int]] = []
    rows = timing.batches([1, 2, 3], 2)
    assert rows == [[1, 2], [3, 1], [2, 3]]
    found = timing.passes(seen.append, rows, runs=4, seconds=5)
    assert seen[found["warm_up"] :] == [*rows, rows[0]]


def test_run_py_holds_the_same_loop():
    """run.py is one file; what it measures must be what is measured elsewhere."""
    for name in ("passes", "milliseconds", "batches", "mean_length", "since_start_ms", "peak_rss_bytes"):
        assert inspect.getsource(getattr(worker, name)) == inspect.getsource(getattr(timing, name))
    for name in ("WINDOW", "STEADY", "MOST_WARM_UP"):
        assert getattr(worker, name) == getattr(timing, name)
