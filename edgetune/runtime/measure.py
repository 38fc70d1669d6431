"""Latency and memory of bundles, side by side: each turn is a fresh process, and the bundles take turns (A B A B).

Sessions that share a process disturb each other, and a busy neighbour disturbs whoever runs at that time; turns spread the
disturbance evenly, so that ratios hold where absolute times do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.errors import RequestError, StageError
from edgetune.runtime.process import run

RUNS = 100  # passes a shape and turn, at most
SECONDS = 3.0  # a shape and turn, at most
RESAMPLES = 1000


@dataclass(frozen=True)
class Shape:
    """`sequence` tokens a text; None: the lengths of the user's own texts, as edgetune.json keeps them."""

    batch: int = 1
    sequence: int | None = None


SHAPES = (Shape(1, None), Shape(1, 16), Shape(1, 128))


@dataclass(frozen=True)
class Latency:
    """One pass at one shape; times in ms over all turns, `ci95_ms` the bootstrap interval of the median.

    `sequence` is in tokens; with "real" `lengths` it is the rounded mean.
    """

    batch: int
    sequence: int
    lengths: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    ci95_ms: tuple[float, float]

    @property
    def tokens_per_s(self) -> float:
        """Of a generator: the speed of the prefill."""
        return self.batch * self.sequence / self.p50_ms * 1000


@dataclass(frozen=True)
class Measurement:
    """What one bundle did. Medians over the turns, but the peak of memory is the largest. `decode_tokens_per_s`: generators."""

    bundle: Path
    provider: str
    threads: int
    onnxruntime: str
    load_ms: float
    cold_start_ms: float
    peak_rss_bytes: int | None
    latency: tuple[Latency, ...]
    decode_tokens_per_s: float | None

    @property
    def p50_ms(self) -> float:
        """Of the first shape: one text at a time, at real lengths, unless other shapes were asked."""
        return self.latency[0].p50_ms


def in_turns(
    bundles: Sequence[Path],
    *,
    rounds: int = 3,
    shapes: Sequence[Shape] = SHAPES,
    threads: int | None = None,
    provider: str | None = None,
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> list[Measurement]:
    """Measure each of `bundles`, in their order, over `rounds` turns each.

    Fixed lengths over a bundle's max_length are bounded by it. Raises RequestError when a bundle cannot be run as asked (its
    provider is not here), StageError when its run.py fails.
    """
    turns: list[list[dict[str, Any]]] = [[] for _ in bundles]
    with progress.bar("measuring", rounds * len(bundles)) as bar:
        for _ in range(rounds):
            for bundle, done in zip(bundles, turns, strict=True):
                done.append(_turn(bundle, shapes, threads, provider, runs, seconds))
                bar.advance(text=bundle.name)
    return [_summary(bundle, done) for bundle, done in zip(bundles, turns, strict=True)]


def _turn(bundle: Path, shapes: Sequence[Shape], threads: int | None, provider: str | None, runs: int, seconds: float) -> dict[str, Any]:
    """One fresh process; shapes of several batch sizes need one process a batch size, whose latencies are joined."""
    common = ["--runs", str(runs), "--seconds", str(seconds)]
    common += ["--threads", str(threads)] if threads else []
    common += ["--provider", provider] if provider else []
    found: dict[str, Any] = {}
    for batch in dict.fromkeys(shape.batch for shape in shapes):
        lengths = ["real" if shape.sequence is None else str(shape.sequence) for shape in shapes if shape.batch == batch]
        done = run(bundle, ["--benchmark", *common, "--batch", str(batch), "--sequence", ",".join(lengths)])
        if done.exit_code or not done.found:
            kind = RequestError if done.exit_code == 2 else StageError
            raise kind(f"{bundle} cannot be measured", details=done.stderr.splitlines()[-5:], mend=f"edgetune verify {bundle}")
        if found:
            found["latency"] += done.found["latency"]
            found["peak_rss_bytes"] = max(found["peak_rss_bytes"] or 0, done.found["peak_rss_bytes"] or 0) or None
        else:
            found = done.found
    return found


def _summary(bundle: Path, turns: Sequence[dict[str, Any]]) -> Measurement:
    def median(key: str) -> float:
        return float(np.median([turn[key] for turn in turns]))

    first = turns[0]
    decode = [time for turn in turns if turn["decode"] for time in turn["decode"]["ms"]]
    return Measurement(
        bundle=bundle,
        provider=first["provider"],
        threads=first["threads"],
        onnxruntime=first["onnxruntime"],
        load_ms=median("load_ms"),
        cold_start_ms=median("cold_start_ms"),
        peak_rss_bytes=max((turn["peak_rss_bytes"] for turn in turns if turn["peak_rss_bytes"]), default=None),
        latency=tuple(_latency(shapes) for shapes in zip(*(turn["latency"] for turn in turns), strict=True)),
        decode_tokens_per_s=1000 / float(np.median(decode)) if decode else None,
    )


def _latency(turns: Sequence[dict[str, Any]]) -> Latency:
    """The same shape in every turn, pooled."""
    times = np.concatenate([turn["ms"] for turn in turns])
    p50, p95, p99 = (float(value) for value in np.percentile(times, (50, 95, 99)))
    return Latency(
        batch=turns[0]["batch"],
        sequence=round(float(np.mean([turn["sequence"] for turn in turns]))),
        lengths=turns[0]["lengths"],
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        runs=len(times),
        ci95_ms=_interval(times),
    )


def _interval(times: np.ndarray) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of the median (Efron & Tibshirani 1993, chapter 13)."""
    if len(times) < 2:
        return float(times[0]), float(times[0])
    from scipy.stats import bootstrap

    found = bootstrap((times,), np.median, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
