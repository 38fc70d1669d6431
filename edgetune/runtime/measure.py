"""Latency and memory of bundles, side by side: each turn is a fresh process, and the bundles take turns (A B A B).

Sessions that share a process disturb each other, and a busy neighbour disturbs whoever runs at that time; turns spread the
disturbance evenly, so that ratios hold where absolute times do not.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.errors import RequestError, StageError
from edgetune.runtime import intervals
from edgetune.runtime.process import Finished, run

RUNS = 100  # passes a shape and turn, at most
SECONDS = 3.0  # a shape and turn, at most
QUANTILES = tuple(range(0, 101, 5))  # percentiles that tell how the times are distributed


@dataclass(frozen=True)
class Entrant:
    """What takes part: a bundle, or another program. `run` starts it with the flags of run.py --benchmark; it prints the same JSON.

    `threads` stands in for those asked of all.
    """

    path: Path
    run: Callable[[Sequence[str]], Finished]
    threads: int | None = None


@dataclass(frozen=True)
class Shape:
    """`sequence` tokens a text; None: the lengths of the user's own texts, as edgetune.json keeps them."""

    batch: int = 1
    sequence: int | None = None


SHAPES = (Shape(1, None), Shape(1, 16), Shape(1, 128))


@dataclass(frozen=True)
class Latency:
    """One pass at one shape; times in ms over all turns, `ci95_ms` the bootstrap interval of the median.

    `sequence` is in tokens; with "real" `lengths` it is the rounded mean, and `text_p50_ms` is from a text to its answer, tokenisation
    included. `quantiles_ms` are at QUANTILES, `turns_ms` the medians of the turns, `times` all passes of each turn. `warm_up`: most
    uncounted passes of a turn; `steady`: whether every turn had stopped becoming faster when it was counted.
    """

    batch: int
    sequence: int
    lengths: str
    p50_ms: float
    p95_ms: float
    p99_ms: float
    runs: int
    ci95_ms: tuple[float, float]
    quantiles_ms: tuple[float, ...]
    turns_ms: tuple[float, ...]
    text_p50_ms: float | None
    text_ci95_ms: tuple[float, float] | None
    warm_up: int
    steady: bool
    times: tuple[np.ndarray, ...] = field(repr=False)

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
    onnxruntime: str | None
    runtime: str
    load_ms: float
    cold_start_ms: float
    peak_rss_bytes: int | None
    latency: tuple[Latency, ...]
    decode_tokens_per_s: float | None
    placement: Mapping[str, Any] | None = None  # of an accelerator: see `worker.placement`

    @property
    def p50_ms(self) -> float:
        """Of the first shape: one text at a time, at real lengths, unless other shapes were asked."""
        return self.latency[0].p50_ms


def in_turns(
    bundles: Sequence[Path | Entrant],
    *,
    rounds: int = 3,
    shapes: Sequence[Shape] = SHAPES,
    threads: int | None = None,
    provider: str | None = None,
    texts: Sequence[str | Mapping[str, str]] = (),
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> list[Measurement]:
    """Measure each of `bundles`, in their order, over `rounds` turns each.

    Fixed lengths over a bundle's max_length are bounded by it; real lengths are those of `texts` when there are some. Raises
    RequestError when a bundle cannot be run as asked (its provider is not here), StageError when its run.py fails.
    """
    entrants = [Entrant(one, partial(run, one)) if isinstance(one, Path) else one for one in bundles]
    turns: list[list[list[dict[str, Any]]]] = [[] for _ in entrants]
    with progress.bar("measuring", rounds * len(entrants)) as bar, tempfile.TemporaryDirectory() as folder:
        file = None
        if texts:
            file = Path(folder) / "texts.jsonl"
            file.write_text("".join(f"{json.dumps(text)}\n" for text in texts), "utf-8")
        for _ in range(rounds):
            for entrant, done in zip(entrants, turns, strict=True):
                asked = commands(shapes, threads=entrant.threads or threads, provider=provider, texts=file, runs=runs, seconds=seconds)
                done.append([_process(entrant, command) for command in asked])
                bar.advance(text=entrant.path.name)
    return [pooled(entrant.path, done) for entrant, done in zip(entrants, turns, strict=True)]


def commands(
    shapes: Sequence[Shape] = SHAPES,
    *,
    threads: int | None = None,
    provider: str | None = None,
    texts: Path | None = None,
    runs: int = RUNS,
    seconds: float = SECONDS,
) -> list[list[str]]:
    """The arguments of run.py of one turn: a process for each batch size of `shapes`. `texts`: a file of JSON strings or objects."""
    common = ["--runs", str(runs), "--seconds", str(seconds)]
    common += ["--threads", str(threads)] if threads else []
    common += ["--provider", provider] if provider else []
    common += ["--texts", str(texts)] if texts else []
    made = []
    for batch in dict.fromkeys(shape.batch for shape in shapes):
        lengths = ["real" if shape.sequence is None else str(shape.sequence) for shape in shapes if shape.batch == batch]
        made.append(["--benchmark", *common, "--batch", str(batch), "--sequence", ",".join(lengths)])
    return made


def _process(entrant: Entrant, command: Sequence[str]) -> dict[str, Any]:
    done = entrant.run(command)
    if done.exit_code or not done.found:
        kind = RequestError if done.exit_code == 2 else StageError
        mend = f"edgetune verify {entrant.path}" if (entrant.path / "edgetune.json").is_file() else None
        raise kind(f"{entrant.path} cannot be measured", details=done.stderr.splitlines()[-5:], mend=mend)
    return done.found


def pooled(bundle: Path, turns: Sequence[Sequence[Mapping[str, Any]]]) -> Measurement:
    """What the processes of each of the `turns` found, as one measurement; each item is a JSON of `run.py --benchmark`."""
    return _summary(bundle, [_joined(turn) for turn in turns])


def _joined(processes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The processes of one turn differ in the batch size: their latencies in a row, and the largest peak."""
    peak = max(found["peak_rss_bytes"] or 0 for found in processes) or None
    return {**processes[0], "latency": [item for found in processes for item in found["latency"]], "peak_rss_bytes": peak}


def _summary(bundle: Path, turns: Sequence[dict[str, Any]]) -> Measurement:
    def median(key: str) -> float:
        return float(np.median([turn[key] for turn in turns]))

    first = turns[0]
    decode = [time for turn in turns if turn["decode"] for time in turn["decode"]["ms"]]
    return Measurement(
        bundle=bundle,
        provider=first["provider"],
        threads=first["threads"],
        onnxruntime=first.get("onnxruntime"),
        runtime=first.get("runtime") or f"onnxruntime {first['onnxruntime']}",
        load_ms=median("load_ms"),
        cold_start_ms=median("cold_start_ms"),
        peak_rss_bytes=max((turn["peak_rss_bytes"] for turn in turns if turn["peak_rss_bytes"]), default=None),
        latency=tuple(_latency(shapes) for shapes in zip(*(turn["latency"] for turn in turns), strict=True)),
        decode_tokens_per_s=1000 / float(np.median(decode)) if decode else None,
        placement=first.get("placement"),
    )


def _latency(turns: Sequence[dict[str, Any]]) -> Latency:
    """The same shape in every turn, pooled."""
    times = tuple(np.array(turn["ms"]) for turn in turns)
    texts = [np.array(turn["text_ms"]) for turn in turns if turn.get("text_ms")]
    every = np.concatenate(times)
    p50, p95, p99 = (float(value) for value in np.percentile(every, (50, 95, 99)))
    return Latency(
        batch=turns[0]["batch"],
        sequence=round(float(np.mean([turn["sequence"] for turn in turns]))),
        lengths=turns[0]["lengths"],
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        runs=len(every),
        ci95_ms=intervals.median(times),
        quantiles_ms=tuple(float(value) for value in np.percentile(every, QUANTILES)),
        turns_ms=tuple(float(np.median(turn)) for turn in times),
        text_p50_ms=float(np.median(np.concatenate(texts))) if texts else None,
        text_ci95_ms=intervals.median(texts) if texts else None,
        warm_up=max(turn.get("warm_up", 0) for turn in turns),
        steady=all(turn.get("steady", False) for turn in turns),
        times=times,
    )
