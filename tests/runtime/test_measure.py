"""Measuring: turns, pooled statistics, and what the machine is."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgetune.errors import RequestError, StageError
from edgetune.runtime import machine, measure
from edgetune.runtime.measure import Shape, in_turns
from edgetune.runtime.process import Finished


def answer(times, **changes) -> dict:
    latency = [{"batch": 1, "sequence": 14, "lengths": "real", "ms": list(times)}]
    base = {"onnxruntime": "1.31.1", "provider": "CPUExecutionProvider", "threads": 1, "load_ms": 5.0, "cold_start_ms": 50.0}
    return {**base, "peak_rss_bytes": 100, "decode": None, "latency": latency, **changes}


def test_bundles_take_turns_and_their_times_are_pooled(monkeypatch):
    asked = []
    random = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {"a": [], "b": []}

    def run(bundle, arguments):
        asked.append((bundle.name, arguments))
        times = random.gamma(2.0, {"a": 1.0, "b": 3.0}[bundle.name], 50)
        drawn[bundle.name] += list(times)
        return Finished(0, answer(times, load_ms=float(len(asked)), peak_rss_bytes=len(asked)), "")

    monkeypatch.setattr(measure, "run", run)
    a, b = in_turns([Path("a"), Path("b")], rounds=3, shapes=[Shape(1, None)], threads=2, provider="P", runs=7, seconds=0.5)
    assert [name for name, _ in asked] == ["a", "b", "a", "b", "a", "b"]
    flags = ["--runs", "7", "--seconds", "0.5", "--threads", "2", "--provider", "P", "--batch", "1", "--sequence", "real"]
    assert asked[0][1] == ["--benchmark", *flags]
    for measured, name in ((a, "a"), (b, "b")):
        [latency] = measured.latency
        assert latency.runs == 150
        assert measured.p50_ms == latency.p50_ms == pytest.approx(np.median(drawn[name]))
        assert latency.p95_ms == pytest.approx(np.percentile(drawn[name], 95))
        assert latency.p99_ms == pytest.approx(np.percentile(drawn[name], 99))
        low, high = latency.ci95_ms
        assert low < latency.p50_ms < high
        assert high - low < latency.p50_ms
    assert a.load_ms == 3.0
    assert (a.peak_rss_bytes, b.peak_rss_bytes) == (5, 6)


def test_the_interval_holds_the_true_median_about_as_often_as_it_says(monkeypatch):
    random = np.random.default_rng(1)
    held = 0
    for _ in range(100):
        monkeypatch.setattr(measure, "run", lambda *_: Finished(0, answer(random.lognormal(0, 0.5, 60)), ""))
        low, high = in_turns([Path("a")], rounds=1)[0].latency[0].ci95_ms
        held += low <= 1.0 <= high
    assert 88 <= held <= 100


def test_a_generator_has_tokens_per_second(monkeypatch):
    prefill = [{"batch": 1, "sequence": 100, "lengths": "fixed", "ms": [50.0] * 3}]
    done = Finished(0, answer([], latency=prefill, decode={"prompt": 8, "ms": [5.0, 4.0, 6.0]}), "")
    monkeypatch.setattr(measure, "run", lambda *_: done)
    [measured] = in_turns([Path("a")], rounds=2)
    assert measured.latency[0].tokens_per_s == pytest.approx(2000)
    assert measured.decode_tokens_per_s == pytest.approx(200)


def test_real_bundles(classifier, generator):
    shapes = [Shape(1, None), Shape(1, 16), Shape(1, 128), Shape(3, 16)]
    small, large = in_turns([classifier, generator], rounds=2, shapes=shapes, runs=5)
    assert [(item.batch, item.sequence, item.lengths) for item in small.latency[1:]] == [
        (1, 16, "fixed"),
        (1, 48, "fixed"),
        (3, 16, "fixed"),
    ]
    assert [item.runs for item in large.latency] == [10, 10, 10, 10]
    assert large.decode_tokens_per_s > 0
    assert small.decode_tokens_per_s is None
    assert small.cold_start_ms > small.load_ms > 0
    assert small.peak_rss_bytes > 20e6


def test_what_cannot_be_measured(classifier, monkeypatch):
    with pytest.raises(RequestError, match="cannot be measured") as caught:
        in_turns([classifier], rounds=1, provider="NoSuchProvider")
    assert "NoSuchProvider is not in this onnxruntime" in caught.value.details[0]
    monkeypatch.setattr(measure, "run", lambda *_: Finished(-11, None, "Segmentation fault"))
    with pytest.raises(StageError) as caught:
        in_turns([classifier], rounds=1)
    assert caught.value.details == ("Segmentation fault",)


def test_the_machine_is_described():
    here = machine.fingerprint()
    json.dumps(here)
    assert here["architecture"] in ("x86_64", "aarch64")
    assert here["cores"] >= 1
    assert here["memory_bytes"] > 1e8
    assert here["onnxruntime"]
    assert here["cpu"] not in ("", "unknown")
    assert 0 <= here["busy"] <= 1
