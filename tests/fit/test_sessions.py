"""Session options are measured, and the best ones are written into the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgetune.fit import sessions
from edgetune.profile import Session


def measured(*found: tuple[float, int]) -> Any:
    return [SimpleNamespace(p50_ms=p50, peak_rss_bytes=memory) for p50, memory in found]


@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([(1.0, 50), (0.5, 90)], 1),
        ([(1.0, 50), (0.99, 90)], 0),
        ([(1.0, 50), (1.0, 50)], 0),
        ([(1.0, 50), (0.96, 90)], 1),
    ],
    ids=["faster", "as fast in less memory", "the first of equals", "clearly faster"],
)
def test_the_fastest_and_among_equals_the_smallest(found: list[tuple[float, int]], best: int) -> None:
    assert sessions.pick(measured(*found)) == best


def test_what_is_tried() -> None:
    names = sessions.variants(Session(threads=2), 4)
    assert next(iter(names)) == "as the profile says"
    assert {one.threads for one in names.values()} == {1, 2, 4}
    assert len({one.model_dump_json() for one in names.values()}) == len(names), "each once"
    assert {one.threads for one in sessions.variants(Session(), 1).values()} == {1}


def test_the_best_is_written_and_nothing_else_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle"
    (bundle / "onnx").mkdir(parents=True)
    (bundle / "onnx" / "model.onnx").write_bytes(b"graph")
    (bundle / "edgetune.json").write_text(json.dumps({"session": {}, "other": 1}))
    seen: list[bool] = []

    def in_turns(copies: list[Path], shapes: Any) -> Any:
        for copy in copies:
            facts = json.loads((copy / "edgetune.json").read_text())
            seen.append(facts["session"]["spinning"])
            assert (copy / "onnx" / "model.onnx").read_bytes() == b"graph"
        return measured(*((1.0 if spinning else 0.5, 50) for spinning in seen))

    monkeypatch.setattr(sessions, "in_turns", in_turns)
    rows = sessions.tune(bundle, Session(), 1, tmp_path)
    assert [row["options"] for row in rows if row["chosen"]] == ["spinning False"]
    assert json.loads((bundle / "edgetune.json").read_text()) == {"session": Session(spinning=False).model_dump(), "other": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"], "no copies are left"
