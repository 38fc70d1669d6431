"""Measure bundles side by side, here or on another machine: latency, memory, size, and the task's metric where rows are given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import progress, tasks
from edgetune.errors import DataError, RequestError
from edgetune.runtime import kit, load, machine, runners
from edgetune.runtime.measure import SHAPES, Measurement, Shape, commands, in_turns
from edgetune.runtime.verify import facts_of
from edgetune.tasks import Scores, Task

SCHEMA = "edgetune.benchmark/1"
RESAMPLES = 1000
Rows = Iterable[Mapping[str, Any]]


def benchmark(
    bundles: Sequence[Path],
    *,
    rounds: int = 3,
    threads: int | None = None,
    provider: str | None = None,
    shapes: Sequence[Shape] = SHAPES,
    rows: Path | Callable[[], Rows] | None = None,
    limit: int | None = None,
    on: str = runners.LOCAL,
    python: str | None = None,
    result: Path | None = None,
) -> dict[str, Any]:
    """Measure `bundles` in turns, in fresh processes, and score them on `rows` (as the task's `encode` takes them).

    `on` names the runner (see `runners.RUNNERS`), `python` its interpreter; or `result` is what a kit's measure.py wrote elsewhere.

    `rows` is a .jsonl file or a function that gives them, of which the first `limit` count; without rows a bundle's quality is the
    one measured at export.
    `threads` and `provider` stand in for the bundles' own. Raises RequestError; GateError when a bundle computes something else there.
    """
    if not bundles:
        raise RequestError("no bundle to measure", mend="edgetune benchmark BUNDLE...")
    every = [facts_of(bundle) for bundle in bundles]
    if rows is not None and (result is not None or on != runners.LOCAL):
        raise RequestError("rows are scored on this machine only", mend="leave out --rows, or --on and --import")
    if result is None and runners.of(on, {"python": python}).name == runners.LOCAL:
        here = machine.fingerprint()
        measured = in_turns(bundles, rounds=rounds, shapes=shapes, threads=threads, provider=provider)
        here["load_after"] = machine.load()
    else:
        plan = kit.plan(rounds, commands(shapes, threads=threads, provider=provider), provider)
        found = kit.read(result) if result else kit.checked(runners.turns(on, bundles, plan, python=python), f"the answer of {on}")
        measured = kit.measurements(found, bundles, f"{found['machine']['cpu']}")
        here = machine.elsewhere(found["machine"], measured[0].onnxruntime)
    here["disturbed"] = (here["busy"] or 0) > machine.BUSY
    if here["disturbed"]:
        progress.warn(f"other programs used {here['busy']:.0%} of {here['cpu']} at the start: trust the ratios, not the times")
    for item in measured:
        if item.placement and item.placement["left"]:
            progress.warn(f"{item.bundle.name}: {_partly(item.placement)}")
    scored = _read(rows)[:limit] if rows is not None else None
    return {
        "schema": SCHEMA,
        "machine": here,
        "bundles": [
            _entry(measurement, facts, _quality(measurement, facts, scored), here["architecture"])
            for measurement, facts in zip(measured, every, strict=True)
        ],
    }


def _entry(measured: Measurement, facts: Mapping[str, Any], quality: Mapping[str, Any] | None, architecture: str) -> dict[str, Any]:
    graph = measured.bundle / facts["model"]
    decoder = tasks.get(facts["task"]).family == "decoder"
    entry: dict[str, Any] = {
        "path": str(measured.bundle),
        "target": facts["target"],
        "scheme": facts["scheme"],
        "size_bytes": sum(path.stat().st_size for path in graph.parent.glob(f"{graph.name}*")),
        "load_ms": measured.load_ms,
        "cold_start_ms": measured.cold_start_ms,
        "peak_rss_bytes": measured.peak_rss_bytes,
        "provider": measured.provider,
        "threads": measured.threads,
        "latency": [
            {
                **{name: value for name, value in vars(item).items() if name != "times"},
                **({"tokens_per_s": item.tokens_per_s} if decoder else {}),
            }
            for item in measured.latency
        ],
        "quality": quality,
    }
    if measured.placement:
        entry["placement"] = dict(measured.placement)
    if decoder:
        entry["decode_tokens_per_s"] = measured.decode_tokens_per_s
    if facts["architecture"] != architecture:
        entry["note"] = f"measured on this {architecture} machine, not on {facts['target']}"
    return entry


def _partly(placed: Mapping[str, Any]) -> str:
    """An accelerator that leaves nodes to the CPU, in a line."""
    left = ", ".join(f"{count} x {kind}" for kind, count in placed["left"].items())
    return f"{placed['provider']} takes {placed['share']:.0%} of the nodes, in {placed['pieces']} pieces; on the CPU run {left}"


def _quality(measured: Measurement, facts: Mapping[str, Any], rows: list[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    task, at_export = tasks.get(facts["task"]), facts["metrics"]
    if rows is not None:
        return {**_score(measured, facts, task, rows), "baseline": at_export.get("baseline"), "measured": "here"}
    if "quality" not in at_export:
        return None
    return {
        "metric": at_export.get("metric", task.metric),
        "value": at_export["quality"],
        "baseline": at_export.get("baseline"),
        "n": at_export.get("rows"),
        "ci95": at_export.get("ci95"),
        "measured": "at export",
    }


def _score(measured: Measurement, facts: Mapping[str, Any], task: Task, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The task's metric of the bundle on `rows`, each row in a pass of its own, as an app would run it."""
    from transformers import AutoTokenizer

    bundle = load(measured.bundle, threads=measured.threads, provider=measured.provider)
    tokenizer = AutoTokenizer.from_pretrained(measured.bundle, local_files_only=True)
    labels = facts["labels"] or ()
    encoded = task.module.encode(rows, tokenizer, max_length=facts["max_length"], labels=labels)
    if not encoded.examples:
        raise DataError(
            f"none of the {len(rows)} rows can be used to score {measured.bundle}", details=[r for _, r in encoded.left_out[:5]]
        )
    with progress.bar(f"scoring {measured.bundle.name}", len(encoded.examples)) as bar:

        def forward(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            bar.advance(len(ids))
            answers = [bundle.logits([row[kept > 0].tolist()])[0] for row, kept in zip(ids, mask, strict=True)]
            return _stack(answers, ids.shape[1])

        scores = task.module.score(forward, encoded.examples, facts["pad_id"])
    value = task.module.metrics(scores, labels)[task.metric]
    return {"metric": task.metric, "value": value, "n": int(np.count_nonzero(scores.weight)), "ci95": _interval(scores, task, labels)}


def _stack(answers: list[np.ndarray], sequence: int) -> np.ndarray:
    """Logits of single rows as one batch; those of tokens [s, vocabulary] are filled up to `sequence`."""
    if answers[0].ndim == 1:
        return np.stack(answers)
    return np.stack([np.pad(answer, ((0, sequence - len(answer)), (0, 0))) for answer in answers])


def _interval(scores: Scores, task: Task, labels: Sequence[str]) -> list[float] | None:
    """95 % interval of the task's metric: Wilson's for a share of right answers, else the percentile bootstrap over rows."""
    from scipy.stats import binomtest, bootstrap

    counted = np.flatnonzero(scores.weight)
    value, weight = scores.value[counted], scores.weight[counted]
    if np.isin(value, (0, 1)).all() and (weight == 1).all():
        found = binomtest(int(value.sum()), len(value)).proportion_ci(method="wilson")
        return [float(found.low), float(found.high)]
    if len(counted) < 2:
        return None

    def metric(index: np.ndarray) -> float:
        return float(task.module.metrics(Scores(value[index], weight[index]), labels)[task.metric])

    rng = np.random.default_rng(0)
    index = np.arange(len(counted))
    found = bootstrap((index,), metric, vectorized=False, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
    return [float(found.low), float(found.high)]


def _read(rows: Path | Callable[[], Rows]) -> list[Mapping[str, Any]]:
    if callable(rows):
        return list(rows())
    try:
        with rows.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]
    except OSError as error:
        raise DataError(f"cannot read {rows}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{rows} is not JSON lines: {error}") from None
