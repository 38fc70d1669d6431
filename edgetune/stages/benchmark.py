"""Measure bundles side by side, here or on another machine: latency, memory, size, and the task's metric where rows are given."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.data import columns, kinds
from edgetune.errors import DataError, RequestError
from edgetune.runtime import contestants, intervals, kit, machine, quality, runners, written
from edgetune.runtime.contestants import Contestant
from edgetune.runtime.measure import RUNS, SHAPES, Measurement, Shape, commands, in_turns
from edgetune.tasks import Scores, Task
from edgetune.tasks.paired import difference

SCHEMA = "edgetune.benchmark/1"
ROUNDS = 5
GENERATED = 100  # rows that are answered
UNSTEADY = 0.3  # spread of the medians of turns from which a measurement counts as disturbed
Rows = Iterable[Mapping[str, Any]]


def benchmark(
    bundles: Sequence[Path],
    *,
    against: Sequence[Path] = (),
    rounds: int = ROUNDS,
    threads: int | Sequence[int] | None = None,
    provider: str | None = None,
    shapes: Sequence[Shape] = SHAPES,
    rows: Path | Callable[[], Rows] | None = None,
    limit: int | None = None,
    generated: int = GENERATED,
    on: str = runners.LOCAL,
    python: str | None = None,
    result: Path | None = None,
) -> dict[str, Any]:
    """Measure `bundles` in turns, in fresh processes, and score them on `rows` (as the task's `encode` takes them).

    `against`: other bundles, ONNX files or Hugging Face directories (run by PyTorch) that take part. Several `threads` measure each
    with each; they and `provider` stand in for the bundles' own. Ratios are to the first bundle.
    `rows` is a .jsonl file or a function that gives them, of which the first `limit` count: they are scored, and a sample of their
    texts are the real lengths; without rows a bundle's quality and lengths are those of its export. What writes texts answers at most
    `generated` of them (0: none).
    `on` names the runner (see `runners.RUNNERS`), `python` its interpreter; or `result` is what a kit's measure.py wrote elsewhere.
    Raises RequestError; GateError when a bundle computes something else there.
    """
    if not bundles:
        raise RequestError("no bundle to measure", mend="edgetune benchmark BUNDLE...")
    local = result is None and runners.of(on, {"python": python}).name == runners.LOCAL
    counts = [threads] if threads is None or isinstance(threads, int) else list(threads)
    if not local and (rows is not None or against or len(counts) > 1):
        raise RequestError(
            "rows, --against and several thread counts are for this machine only", mend="leave them out, or --on and --import"
        )
    every = [contestants.bundle(path) for path in bundles]
    scored = _read(rows)[:limit] if rows is not None else None
    if scored is not None and len({one.task.name for one in every}) > 1:
        raise RequestError("the bundles do different tasks: no rows suit them all", mend="measure them one by one, or leave out --rows")
    with TemporaryDirectory() as folder:
        every += [contestants.against(path, every[0], Path(folder) / str(number)) for number, path in enumerate(against)]
        field = [(one, count) for one in every for count in counts]
        if local:
            here = machine.fingerprint()
            entrants = [one.entrant(count) for one, count in field]
            measured = in_turns(entrants, rounds=rounds, shapes=shapes, provider=provider, texts=_items(scored, every[0].task))
            here |= {"load_after": machine.load(), "busy_after": machine.busy()}
        else:
            plan = kit.plan(rounds, commands(shapes, threads=counts[0], provider=provider), provider)
            found = kit.read(result) if result else kit.checked(runners.turns(on, bundles, plan, python=python), f"the answer of {on}")
            measured = kit.measurements(found, bundles, f"{found['machine']['cpu']}")
            here = {**machine.elsewhere(found["machine"], measured[0].onnxruntime or ""), "busy_after": None}
        _judge(here, measured)
        for item in measured:
            if item.placement and item.placement["left"]:
                progress.warn(f"{item.bundle.name}: {_partly(item.placement)}")
        qualities = dict(zip(map(id, every), _qualities(every, scored, provider), strict=True))
        texts = dict(
            zip(map(id, every), written.score(every, scored or (), most=generated if scored else 0, provider=provider), strict=True)
        )
        entries = [
            {
                **_entry(one, measurement, qualities[id(one)], here["architecture"]),
                **({"generated": told} if (told := texts[id(one)]) else {}),
            }
            for (one, _), measurement in zip(field, measured, strict=True)
        ]
    _add_ratios(entries, measured)
    return {"schema": SCHEMA, "rounds": rounds, "machine": here, "bundles": entries}


def _judge(here: dict[str, Any], measured: Sequence[Measurement]) -> None:
    """Whether the machine was quiet: how busy it was, and by how much the turns of one shape differ (`spread`, the median)."""
    turns = [item.turns_ms for one in measured for item in one.latency]
    here["spread"] = float(np.median([max(times) / min(times) - 1 for times in turns]))
    busy = max(here["busy"] or 0, here.get("busy_after") or 0)
    here["disturbed"] = busy > machine.BUSY or here["spread"] > UNSTEADY
    if here["disturbed"]:
        why = f"other programs used {busy:.0%} of {here['cpu']}" if busy > machine.BUSY else f"turns differ by {here['spread']:.0%}"
        progress.warn(f"{why}: trust the ratios, not the times")


def _entry(one: Contestant, measured: Measurement, found: Mapping[str, Any] | None, architecture: str) -> dict[str, Any]:
    decoder = one.task.family != "encoder"
    entry: dict[str, Any] = {
        "path": str(one.path),
        "kind": one.kind,
        "target": one.facts["target"],
        "scheme": one.facts["scheme"],
        **one.sizes(),
        "load_ms": measured.load_ms,
        "cold_start_ms": measured.cold_start_ms,
        "peak_rss_bytes": measured.peak_rss_bytes,
        "runtime": measured.runtime,
        "provider": measured.provider,
        "threads": measured.threads,
        "latency": [
            {
                **{name: value for name, value in vars(item).items() if name != "times"},
                **({"tokens_per_s": item.tokens_per_s} if decoder else {}),
            }
            for item in measured.latency
        ],
        "quality": found,
    }
    if measured.placement:
        entry["placement"] = dict(measured.placement)
    if decoder:
        entry["decode_tokens_per_s"] = measured.decode_tokens_per_s
    if one.facts["architecture"] != architecture:
        entry["note"] = f"measured on this {architecture} machine, not on {one.facts['target']}"
    return entry


def _partly(placed: Mapping[str, Any]) -> str:
    """An accelerator that leaves nodes to the CPU, in a line."""
    left = ", ".join(f"{count} x {kind}" for kind, count in placed["left"].items())
    return f"{placed['provider']} takes {placed['share']:.0%} of the nodes, in {placed['pieces']} pieces; on the CPU run {left}"


def _add_ratios(entries: Sequence[dict[str, Any]], measured: Sequence[Measurement]) -> None:
    """To each latency its `ratio` to the first bundle at the same number of threads; of the first bundle, to its first number."""
    for number, (entry, one) in enumerate(zip(entries, measured, strict=True)):
        same = [i for i, other in enumerate(measured) if entries[i]["path"] == entries[0]["path"] and other.threads == one.threads]
        reference = same[0] if same and same[0] < number else 0
        if reference == number:
            continue
        to = {"path": entries[reference]["path"], "threads": measured[reference].threads}
        for facts, item, base in zip(entry["latency"], one.latency, measured[reference].latency, strict=True):
            value, ci95 = intervals.ratio(item.times, base.times)
            facts["ratio"] = {"to": to, "value": value, "ci95": ci95}


def _qualities(every: Sequence[Contestant], rows: Sequence[Mapping[str, Any]] | None, provider: str | None) -> list[dict[str, Any] | None]:
    """Measured on `rows`, each with its difference to the first; or what was measured at export."""
    if rows is None:
        return [_at_export(one) for one in every]
    found: list[dict[str, Any] | None] = []
    first: Scores | None = None
    for one in every:
        scores = quality.score(one, rows, provider=provider)
        facts = quality.facts(scores, one.task, one.facts["labels"] or ())
        facts |= {"baseline": one.facts["metrics"].get("baseline"), "measured": "here"}
        if first is not None and (changed := difference(scores, first, one.task)):
            facts["difference"] = {"to": str(every[0].path), **changed}
        first = first or scores
        found.append(facts)
    return found


def _at_export(one: Contestant) -> dict[str, Any] | None:
    metrics = one.facts["metrics"]
    if "quality" not in metrics:
        return None
    return {
        "metric": metrics.get("metric", one.task.metric),
        "value": metrics["quality"],
        "baseline": metrics.get("baseline"),
        "n": metrics.get("rows"),
        "ci95": metrics.get("ci95"),
        "measured": "at export",
    }


def _items(rows: Sequence[Mapping[str, Any]] | None, task: Task) -> list[str | dict[str, str]]:
    """As many items as a turn has passes, drawn from `rows`."""
    if rows is None:
        return []
    return [columns.item(row, task.asks) for row in random.Random(0).sample(list(rows), min(RUNS, len(rows)))]


def _read(rows: Path | Callable[[], Rows]) -> list[Mapping[str, Any]]:
    if callable(rows):
        return list(rows())
    try:
        with rows.open(encoding="utf-8") as file:
            found = [json.loads(line) for line in file if line.strip()]
    except OSError as error:
        raise DataError(f"cannot read {rows}: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{rows} is not JSON lines: {error}") from None
    wrong = [number for number, row in enumerate(found, 1) if not isinstance(row, dict) or not {*kinds.ASKED, "messages"} & row.keys()]
    if wrong:
        raise DataError(
            f"row {wrong[0]} of {rows} has no text, prompt or anything else that is asked",
            mend="give the rows of a run, such as RUN/data/test.jsonl",
        )
    return found
