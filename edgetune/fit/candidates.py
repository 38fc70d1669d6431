"""Candidates: each scheme's graph, what it costs in the metric, and the first that keeps its promise.

A dynamically quantised candidate is scored one row at a time, as an app runs it: its scales come from the whole tensor, so the
neighbours in a batch would change the answer. Graphs and scores are kept by content and shared between targets.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import progress, quant
from edgetune.artifact import file_digest
from edgetune.fit import gate
from edgetune.graph import session
from edgetune.quant import Context, Scheme
from edgetune.quant.calibration import feeds
from edgetune.target import Target
from edgetune.tasks import Scores, Task
from edgetune.workspace import write_json

SPLITS = ("validation", "test")
ENTRY = "entry.json"


@dataclass(frozen=True)
class Asked:
    """What a candidate must keep: the task's metric on these examples within `allowed`, and `size_bytes` if given."""

    task: Task
    examples: Mapping[str, Sequence[Mapping[str, Any]]]
    labels: Sequence[str]
    pad_id: int
    target: Target
    allowed: float
    strict: bool
    size_bytes: float | None
    calibration: Sequence[Mapping[str, Any]] = ()  # training examples that static schemes measure the ranges of activations on


@dataclass(frozen=True)
class Candidate:
    scheme: Scheme
    graph: Path
    size_bytes: int
    facts: Mapping[str, Any]
    validation: Scores
    test: Scores
    verdict: gate.Verdict | None = None  # None: the float graph itself
    too_large: bool = False
    chosen: bool = False
    reason: str = ""


def choose(graph: Path, schemes: Sequence[str], asked: Asked, work: Path) -> list[Candidate]:
    """Every candidate that was tried, float first; the first of `schemes` that passes is marked as chosen."""
    base = _candidate(graph, quant.get("fp32"), asked, work)
    tried: list[Candidate] = []
    for name in schemes:
        scheme = quant.get(name)
        candidate = _judge(base if name == "fp32" else _candidate(graph, scheme, asked, work), base, asked)
        tried.append(candidate)
        progress.note(f"{name}: {candidate.size_bytes / 1e6:.1f} MB, {candidate.reason}")
        if candidate.chosen:
            break
    if all(c.scheme.name != "fp32" for c in tried):
        tried.insert(0, replace(base, reason="the float graph that the others are compared with"))
    return tried


def as_facts(task: Task, candidate: Candidate, labels: Sequence[str]) -> dict[str, Any]:
    """A candidate as a row of the report; `quality` and the other metrics are those on validation, which decides."""
    metrics = task.module.metrics(candidate.validation, labels)
    return {
        "scheme": candidate.scheme.name,
        "size_bytes": candidate.size_bytes,
        "quality": metrics[task.metric],
        "validation": metrics,
        "drop": candidate.verdict.loss if candidate.verdict else 0.0,
        "bound": candidate.verdict.bound if candidate.verdict else 0.0,
        "passed": candidate.chosen,
        "reason": candidate.reason,
        **candidate.facts,
    }


def _judge(candidate: Candidate, base: Candidate, asked: Asked) -> Candidate:
    if asked.size_bytes and candidate.size_bytes > asked.size_bytes:
        reason = f"refused: {candidate.size_bytes / 1e6:.1f} MB, the budget is {asked.size_bytes / 1e6:.1f} MB"
        return replace(candidate, reason=reason, too_large=True)
    if candidate.scheme.name == "fp32":
        return replace(candidate, chosen=True, reason="the float graph keeps the metric as it is")
    verdict = gate.decide(asked.task, base.validation, candidate.validation, asked.allowed)
    what = f"{asked.task.metric} drop" if asked.task.higher_is_better else f"{asked.task.metric} rise (relative)"
    return replace(candidate, verdict=verdict, chosen=verdict.passed(asked.strict), reason=verdict.reason(what, asked.strict))


def _candidate(graph: Path, scheme: Scheme, asked: Asked, work: Path) -> Candidate:
    """The scheme's graph and scores: from `work` when they are there as they were written, else made, with the entry last."""
    context = Context(
        saturates=asked.target.quantization.saturates,
        calibration=(lambda: feeds(asked.calibration)) if asked.calibration else None,
        float_ops=asked.target.quantization.float_ops,
    )
    folder = work / f"{file_digest(graph)[:16]}-{scheme.key(context)}"
    made = folder / "model.onnx"
    facts = _kept(folder)
    if facts is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        facts = scheme.apply(graph, made, context)
        scores = {split: _score(made, scheme, asked, split) for split in SPLITS}
        np.savez(
            folder / "scores.npz",
            **{f"{split}_{name}": value for split, s in scores.items() for name, value in asdict(s).items() if value is not None},
        )
        write_json(folder / ENTRY, {"sha256": {path.name: file_digest(path) for path in folder.iterdir()}, "facts": facts})
    with np.load(folder / "scores.npz", allow_pickle=False) as arrays:
        scores = {s: Scores(**{k.removeprefix(f"{s}_"): arrays[k] for k in arrays.files if k.startswith(f"{s}_")}) for s in SPLITS}
    return Candidate(
        scheme, made, sum(path.stat().st_size for path in folder.glob("model.onnx*")), facts, scores["validation"], scores["test"]
    )


def _kept(folder: Path) -> dict[str, Any] | None:
    """The facts of a candidate that is complete and unchanged; None for one that has to be made again."""
    try:
        entry = json.loads((folder / ENTRY).read_text("utf-8"))
        unchanged = all(file_digest(folder / name) == digest for name, digest in entry["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return entry["facts"] if unchanged else None


def _score(graph: Path, scheme: Scheme, asked: Asked, split: str) -> Scores:
    examples = asked.examples[split]
    forward = session.forward(graph)
    with progress.bar(f"scoring {scheme.name} on {split}", len(examples)) as bar:

        def counted(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            bar.advance(len(ids))
            return forward(ids, mask)

        size = {"size": 1} if scheme.row_by_row else {}
        scores: Scores = asked.task.module.score(counted, examples, asked.pad_id, **size)
    return scores
