"""Candidates: each scheme's graph, and what it costs in the metric.

A dynamically quantised candidate is scored one row at a time, and a decoder beside an encoder one token at a time, as an app runs it: its
scales come from the whole tensor, so the neighbours would change the answer. Graphs and scores are kept by content and shared between targets.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.artifact import file_digest
from edgetune.fit import gate
from edgetune.graph import DECODER, files, session
from edgetune.quant import Context, Scheme
from edgetune.quant.calibration import feeds
from edgetune.target import Target
from edgetune.tasks import Arrays, Scores, Task, joined
from edgetune.workspace import write_json

ENTRY, GRAPH = "entry.json", "model.onnx"


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
    """One scheme's graph of one form of the model. `scores`: split -> what it said about those rows, as far as it was asked."""

    scheme: Scheme
    graph: Path
    size_bytes: int
    facts: Mapping[str, Any]
    scores: Mapping[str, Scores]
    form: str = "whole"
    verdict: gate.Verdict | None = None  # None: the float graph itself
    too_large: bool = False
    chosen: bool = False
    reason: str = ""

    @property
    def validation(self) -> Scores:
        """On all validation rows: as a whole, or its two halves."""
        halves = ("validation",) if "validation" in self.scores else ("choose", "prove")
        return joined([self.scores[name] for name in halves])

    @property
    def test(self) -> Scores:
        return self.scores["test"]


def as_facts(task: Task, candidate: Candidate, labels: Sequence[str]) -> dict[str, Any]:
    """A candidate as a row of the report; `quality` and the other metrics are those on validation, which decides."""
    metrics = task.module.metrics(candidate.validation, labels) if candidate.scores else {}
    return {
        "form": candidate.form,
        "scheme": candidate.scheme.name,
        "size_bytes": candidate.size_bytes,
        "quality": metrics.get(task.metric),
        "validation": metrics,
        "drop": candidate.verdict.loss if candidate.verdict else 0.0,
        "bound": candidate.verdict.bound if candidate.verdict else 0.0,
        "passed": candidate.chosen,
        "reason": candidate.reason,
        **candidate.facts,
    }


def too_large(candidate: Candidate, asked: Asked) -> bool:
    return bool(asked.size_bytes and candidate.size_bytes > asked.size_bytes)


def judge(candidate: Candidate, base: Candidate, asked: Asked) -> Candidate:
    """The verdict on all validation rows."""
    if too_large(candidate, asked):
        assert asked.size_bytes
        reason = f"refused: {candidate.size_bytes / 1e6:.1f} MB, the budget is {asked.size_bytes / 1e6:.1f} MB"
        return replace(candidate, reason=reason, too_large=True)
    if candidate.scheme.name == "fp32":
        return replace(candidate, chosen=True, reason="the float graph keeps the metric as it is")
    verdict = gate.decide(asked.task, base.validation, candidate.validation, asked.allowed)
    what = f"{asked.task.metric} drop" if asked.task.higher_is_better else f"{asked.task.metric} rise (relative)"
    return replace(candidate, verdict=verdict, chosen=verdict.passed(asked.strict), reason=verdict.reason(what, asked.strict))


def context(graph: Path, asked: Asked, keep_float: frozenset[str] = frozenset()) -> Context:
    return Context(
        saturates=asked.target.quantization.saturates,
        calibration=(lambda: _calibration(graph, asked)) if asked.calibration else None,
        float_ops=asked.target.quantization.float_ops,
        keep_float=_of_type(graph, asked.target.quantization.float_ops) | keep_float,
    )


def make(graph: Path, scheme: Scheme, asked: Asked, work: Path, form: str = "whole", keep_float: frozenset[str] = frozenset()) -> Candidate:
    """The scheme's graph: from `work` when it is there as it was written, else made, with the entry last. Not scored yet."""
    given, parts = context(graph, asked, keep_float), files(graph)
    level = asked.target.session.optimization  # what is fused changes the last digits of a score
    folder = work / f"{'-'.join(file_digest(part)[:16] for part in parts)}-{scheme.key(given)}{'' if level == 'all' else f'-{level}'}"
    entry = _kept(folder)
    if entry is None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        names = zip(parts, (GRAPH, DECODER), strict=False)
        facts, *decoder = (scheme.apply(part, folder / name, context(part, asked, keep_float)) for part, name in names)
        entry = {"facts": facts | ({"decoder": decoder[0]} if decoder else {})}
        _enter(folder, entry["facts"])
    size = sum(path.stat().st_size for path in folder.glob("*.onnx*"))
    return Candidate(scheme, folder / GRAPH, size, entry["facts"], {}, form)


def forget(work: Path, graphs: Sequence[Path]) -> None:
    """Remove from `work` what was made of other float graphs than `graphs`: nothing will ask for it again."""
    known = {file_digest(graph)[:16] for graph in graphs}
    for folder in work.glob("*"):
        if folder.name[:16] not in known:
            shutil.rmtree(folder)


def scored(candidate: Candidate, asked: Asked, splits: Sequence[str]) -> Candidate:
    """The candidate with its scores on `splits`; they are kept beside its graph."""
    folder = candidate.graph.parent
    found = dict(candidate.scores)
    for split in splits:
        place = folder / f"scores-{split}-{_digest(asked.examples[split])}.npz"
        if not place.exists():
            scores = _score(candidate.graph, candidate.scheme, asked, split)
            np.savez(place, **{name: value for name, value in asdict(scores).items() if value is not None})
            _enter(folder, candidate.facts)
        with np.load(place, allow_pickle=False) as arrays:
            found[split] = Scores(**{name: arrays[name] for name in arrays.files})
    return replace(candidate, scores=found)


def _digest(examples: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(list(examples), default=list).encode()).hexdigest()[:8]


def _enter(folder: Path, facts: Mapping[str, Any]) -> None:
    digests = {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != ENTRY}
    write_json(folder / ENTRY, {"sha256": digests, "facts": facts})


def _of_type(graph: Path, types: Sequence[str]) -> frozenset[str]:
    """The names of the nodes of these types: integer schemes know nodes, and fp16 types."""
    if not types:
        return frozenset()
    import onnx

    return frozenset(node.name for node in onnx.load(graph, load_external_data=False).graph.node if node.op_type in types)


def _calibration(graph: Path, asked: Asked) -> Iterator[Mapping[str, np.ndarray]]:
    """The calibration rows as `graph` takes them."""
    run = session.start(graph)
    for row in feeds(asked.calibration):
        yield from session.fitted(row, run, asked.pad_id)


def _kept(folder: Path) -> dict[str, Any] | None:
    """The entry of a candidate that is complete and unchanged; None for one that has to be made again."""
    try:
        entry: dict[str, Any] = json.loads((folder / ENTRY).read_text("utf-8"))
        strangers = {path.name for path in folder.iterdir()} - entry["sha256"].keys() - {ENTRY}
        for name in strangers:  # half-written when a run was killed
            (folder / name).unlink()
        unchanged = all(file_digest(folder / name) == digest for name, digest in entry["sha256"].items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return entry if unchanged else None


def _score(graph: Path, scheme: Scheme, asked: Asked, split: str) -> Scores:
    """All cores at once: on a batch of rows together or, where rows go one at a time and give one core little to do, each on rows of its own."""
    examples, score = asked.examples[split], asked.task.module.score
    cores = (os.cpu_count() or 1) if scheme.row_by_row else 1
    forward = session.forward(graph, asked.pad_id, asked.target.session.optimization, 1 if scheme.row_by_row else 0, scheme.row_by_row)
    with progress.bar(f"scoring {scheme.name} on {split}", len(examples)) as bar:

        def counted(given: Arrays) -> Arrays:
            bar.advance(len(given["input_ids"]))
            return forward(given)

        if cores == 1:
            size = {"size": 1} if scheme.row_by_row else {}
            scores: Scores = score(counted, examples, asked.pad_id, **size)
            return scores
        parts = _shares(examples, cores)
        with ThreadPoolExecutor(cores) as pool:  # onnxruntime computes without Python's lock
            return joined(list(pool.map(lambda part: score(counted, part, asked.pad_id, size=1), parts)))


def _shares(examples: Sequence[Mapping[str, Any]], count: int) -> list[Sequence[Mapping[str, Any]]]:
    """At most `count` parts of about one size; those of one `item` (the windows of a long text) stay together."""
    starts = [i for i, one in enumerate(examples) if i == 0 or one.get("item", i) != examples[i - 1].get("item", i - 1)]
    share = -(-len(examples) // count)
    cuts = sorted({next((start for start in starts if start >= share * k), len(examples)) for k in range(count)} | {len(examples)})
    return [examples[a:b] for a, b in pairwise(cuts)]
