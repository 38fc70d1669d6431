"""A refused int8 candidate once more, with the layers that cost most left in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from edgetune import progress
from edgetune.fit.candidates import Asked, Candidate, context, judge, make, scored
from edgetune.graph import session
from edgetune.quant import sensitivity
from edgetune.quant.calibration import feeds

ROWS, LEAST_ROWS = 64, 12  # of validation, to measure what each layer costs; fewer where the graph is larger than LARGE
LARGE = 100e6  # bytes


def mendable(refused: Candidate, asked: Asked) -> bool:
    """True where layers of the scheme can be left in float: whole-integer arithmetic on an encoder."""
    return asked.task.family == "encoder" and "keep_float" in refused.scheme.reads and refused.scheme.row_by_row


def mend(graph: Path, refused: Candidate, base: Candidate, asked: Asked, work: Path, splits: Sequence[str] = ("validation",)) -> Candidate:
    """The first candidate that `judge` accepts while 1, 2, 4, ... of the costliest layers go back to float; else `refused` itself.

    Either way its facts get `sensitivity`: what each layer costs, and metric and size at every try.
    """
    run = session.start(graph)
    count = max(LEAST_ROWS, round(ROWS * min(1.0, LARGE / graph.stat().st_size)))
    rows = [part for row in islice(feeds(asked.examples[splits[0]]), count) for part in session.fitted(row, run, asked.pad_id)]
    costs = sensitivity.costs(graph, refused.scheme, context(graph, asked), rows)
    tried: list[Candidate] = []

    def attempt(nodes: frozenset[str]) -> tuple[bool, dict[str, Any]]:
        candidate = judge(scored(make(graph, refused.scheme, asked, work, refused.form, nodes), asked, splits), base, asked)
        tried.append(candidate)
        metrics = asked.task.module.metrics(candidate.validation, asked.labels)
        progress.note(f"{refused.scheme.name} with {len(nodes)} layers in float: {candidate.size_bytes / 1e6:.1f} MB, {candidate.reason}")
        return candidate.chosen, {"quality": metrics[asked.task.metric], "size_bytes": candidate.size_bytes}

    kept, curve = sensitivity.mend(costs, attempt)
    best = refused if kept is None else tried[-1]
    return replace(best, facts={**best.facts, "sensitivity": curve})
