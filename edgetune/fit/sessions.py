"""Which options of the onnxruntime session run a bundle best on this machine: measured in turns, each in processes of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgetune import progress
from edgetune.profile import Session
from edgetune.runtime.measure import Measurement, Shape, in_turns
from edgetune.workspace import write_json

SAME = 0.03  # times that differ by less are the same; then the least memory decides
CHANGES: tuple[Mapping[str, Any], ...] = (
    {},
    {"spinning": False},
    {"optimization": "extended"},
    {"arena": False},
    {"prepacking": False},
    {"arena": False, "prepacking": False},
)


def variants(session: Session, cores: int) -> dict[str, Session]:
    """The profile's options, each of its alternatives, and other numbers of threads up to `cores`; by what they change."""
    changes = [*CHANGES, *({"threads": n} for n in (1, 2, 4) if n <= cores)]
    made = [session.model_copy(update=dict(change)) for change in changes]
    names = [", ".join(f"{key} {value}" for key, value in change.items()) or "as the profile says" for change in changes]
    return {name: one for i, (name, one) in enumerate(zip(names, made, strict=True)) if one not in made[:i]}


def tune(bundle: Path, session: Session, cores: int, scratch: Path) -> list[dict[str, Any]]:
    """Measure `bundle` under each variant and write the best into its edgetune.json; returns a row for each, the best marked.

    Best is the least median time at real lengths; within 3 % of it, the least peak memory.
    """
    tried = variants(session, cores)
    facts = json.loads((bundle / "edgetune.json").read_text("utf-8"))
    copies: list[Path] = []
    for number, one in enumerate(tried.values()):
        copy = scratch / f"session-{number}"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(bundle, copy, copy_function=_link)
        (copy / "edgetune.json").unlink()
        write_json(copy / "edgetune.json", {**facts, "session": one.model_dump()})
        copies.append(copy)
    measured = in_turns(copies, shapes=[Shape()])
    best = pick(measured)
    for copy in copies:
        shutil.rmtree(copy)
    name, chosen = list(tried.items())[best]
    write_json(bundle / "edgetune.json", {**facts, "session": chosen.model_dump()})
    progress.note(f"session options: {name} ({measured[best].p50_ms:.3f} ms, {(measured[best].peak_rss_bytes or 0) / 1e6:.0f} MB)")
    return [
        {"options": name, "p50_ms": found.p50_ms, "peak_rss_bytes": found.peak_rss_bytes, "chosen": i == best}
        for i, (name, found) in enumerate(zip(tried, measured, strict=True))
    ]


def pick(measured: Sequence[Measurement]) -> int:
    """The index of the fastest; among those as fast, of the one that needs the least memory, the first of equals."""
    limit = min(found.p50_ms for found in measured) * (1 + SAME)
    near = [i for i, found in enumerate(measured) if found.p50_ms <= limit]
    return min(near, key=lambda i: (measured[i].peak_rss_bytes or 0, i))


def _link(source: str, copy: str) -> str:
    Path(copy).hardlink_to(source)
    return copy
