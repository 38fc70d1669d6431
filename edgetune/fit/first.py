"""Without a search: the first of the target's schemes that keeps its promise; a refused one gets its costliest layers back in float first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgetune import progress, quant
from edgetune.fit.candidates import Asked, Candidate, judge, make, scored, too_large
from edgetune.fit.mend import mend, mendable


def choose(graph: Path, schemes: Sequence[str], asked: Asked, work: Path) -> list[Candidate]:
    """Every candidate that was tried, float first; the first of `schemes` that passes is marked as chosen, and scored on test."""
    base = scored(make(graph, quant.get("fp32"), asked, work), asked, ("validation", "test"))
    tried: list[Candidate] = []
    for name in schemes:
        candidate = base if name == "fp32" else make(graph, quant.get(name), asked, work)
        if not too_large(candidate, asked):
            candidate = scored(candidate, asked, ("validation",))
        candidate = judge(candidate, base, asked)
        if candidate.verdict and not candidate.chosen and mendable(candidate, asked):
            candidate = mend(graph, candidate, base, asked, work)
        tried.append(scored(candidate, asked, ("test",)) if candidate.chosen else candidate)
        progress.note(f"{name}: {candidate.size_bytes / 1e6:.1f} MB, {candidate.reason}")
        if candidate.chosen:
            break
    if all(c.scheme.name != "fp32" for c in tried):
        tried.insert(0, replace(base, reason="the float graph that the others are compared with"))
    return tried
