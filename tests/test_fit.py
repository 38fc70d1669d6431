"""`export --fit` from end to end: smaller models are made, one ships, the report says why, and a second run does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import pipeline
from edgetune.errors import GateError
from edgetune.graph import export as graphs
from edgetune.runtime import load
from edgetune.workspace import Workspace

KEYS: dict[str, Any] = {"export__max_drop": 0.2, "compress__learning_rate": 5e-3, "export__fit": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.problem(tmp_path_factory.mktemp("fit"), rows=400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "EXPORTERS", {"torchscript": graphs._torchscript})
        return pipeline.run(tiny.recipe(folder, **KEYS), "export")


@pytest.fixture(scope="module")
def facts(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text("utf-8"))["export"]["x86_64-vnni"]


def test_every_candidate_is_told_and_one_ships(facts: dict[str, Any]) -> None:
    forms = {row["form"] for row in facts["candidates"]}
    assert "whole" in forms and len(forms) > 1
    assert [row["form"] for row in facts["candidates"] if row["passed"]] == [facts["form"]]
    assert all(row["reason"] for row in facts["candidates"])
    assert facts["size_bytes"] == min(row["size_bytes"] for row in facts["candidates"] if row["passed"])
    assert facts["drop"] == pytest.approx(facts["baseline"] - facts["quality"])


def test_the_bundle_is_the_small_model(run: Path, facts: dict[str, Any]) -> None:
    bundle = load(run / "bundles" / "x86_64-vnni")
    assert bundle.predict(["please lock the gate"])[0]["scores"]
    assert (run / "bundles" / "x86_64-vnni" / bundle.facts["model"]).stat().st_size == facts["size_bytes"]
    config = json.loads((run / "bundles" / "x86_64-vnni" / "config.json").read_text("utf-8"))
    made = {
        path.name: json.loads((path / "config.json").read_text("utf-8")) for path in (run / "compressed").iterdir() if path.name != "texts"
    }
    expected = made.get(facts["form"], {"num_hidden_layers": 2})
    assert config["num_hidden_layers"] == expected["num_hidden_layers"]


def test_the_page_shows_the_search(run: Path, facts: dict[str, Any]) -> None:
    page = (run / "report.html").read_text("utf-8")
    assert "Time and size of every candidate of the search" in page
    assert facts["verdict"].split(":")[0] in page


def test_a_second_run_does_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    original = Workspace.stage

    def stage(self: Workspace, name: str, kind: Any, folder: str, make: Any, **options: Any) -> Any:
        return original(self, name, kind, folder, lambda out: made.append(name) or make(out), **options)

    monkeypatch.setattr(Workspace, "stage", stage)
    pipeline.run(tiny.recipe(run.parent, **KEYS), "export")
    assert made == []
    pipeline.run(tiny.recipe(run.parent, **{**KEYS, "export__max_drop": 0.3}), "export")
    assert made == ["export:x86_64-vnni"], "another allowance asks for no new student"


def test_an_impossible_budget(run: Path) -> None:
    with pytest.raises(GateError, match="no candidate fits the budgets") as raised:
        pipeline.run(tiny.recipe(run.parent, **KEYS, export__max_size_mb=0.001), "export")
    assert raised.value.exit_code == 4
    assert "--max-size" in (raised.value.mend or "")
    assert len(raised.value.details) > 1
