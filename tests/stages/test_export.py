"""export: the bundle of the first candidate that keeps its promise, or a refusal that says what would help."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny

from edgetune import target
from edgetune.artifact import Graph
from edgetune.errors import GateError, RecipeError
from edgetune.fit.choice import Form
from edgetune.runtime import verify
from edgetune.stages import export as stage
from edgetune.target import Target

LOSSY = ["int8-dynamic-per-channel", "int8-dynamic"]


@pytest.fixture(scope="module")
def run(toy_run: Callable[[str], Any]) -> Any:
    return toy_run("full")


@pytest.fixture(scope="module")
def graph(run: Any) -> Graph:
    return run.graph()


def bundle(run: Any, graph: Graph, out: Path, device: Target | None = None, **keys: Any) -> dict[str, Any]:
    recipe = tiny.recipe(Path(run.recipe.model).parent, **{"export__max_drop": 0.3, **keys})
    return stage.bundle(recipe, device or target.load("arm64"), run.dataset, [Form("whole", run.merged, graph)], out.parent / "work", out)


def test_the_bundle_is_verified_and_its_facts_add_up(run: Any, graph: Graph, out: Path) -> None:
    facts = bundle(run, graph, out)
    assert facts["scheme"] == "int8-dynamic-per-channel"
    assert facts["baseline"] == pytest.approx(run.adapted.facts["test"]["accuracy"])
    assert facts["drop"] == pytest.approx(facts["baseline"] - facts["quality"])
    assert facts["drop"] == pytest.approx((facts["flips"]["right_to_wrong"] - facts["flips"]["wrong_to_right"]) / facts["rows"])
    assert facts["rows"] == sum(label != "out_of_scope" for label in labels_of(run, "test"))
    assert facts["golden"]["passed"] and verify.verify(out)["passed"]
    assert facts["size_bytes"] == (out / "onnx" / "model_quantized.onnx").stat().st_size
    assert {"temperature", "reject_below", "chosen_by", "test"} <= set(facts["confidence"])
    json.dumps(facts)


def test_a_model_that_an_earlier_version_merged_is_traced(run: Any, graph: Graph, out: Path) -> None:
    """Its facts name no inputs: there were only single texts."""
    facts = {name: fact for name, fact in run.merged.facts.items() if name not in ("inputs", "asks")}
    traced = stage.graph(run.recipe, replace(run.merged, facts=facts), 20, 10, out)
    assert traced["max_error"] <= 1e-4
    assert [value.name for value in onnx.load(out / "model.onnx").graph.input] == ["input_ids", "attention_mask"]


def labels_of(run: Any, split: str) -> list[str]:
    return [json.loads(line)["label"] for line in (run.dataset.path / f"{split}.jsonl").read_text("utf-8").splitlines()]


def test_labels_and_confidence_reach_the_bundle(run: Any, graph: Graph, out: Path) -> None:
    facts = bundle(run, graph, out, export__reject_below=0.42, export__schemes=["fp32"])
    written = json.loads((out / "edgetune.json").read_text("utf-8"))
    assert written["labels"] == list(tiny.LABELS)
    assert written["confidence"]["reject_below"] == 0.42 == facts["confidence"]["reject_below"]
    assert facts["confidence"]["chosen_by"] == "the recipe"
    assert facts["drop"] == 0 and facts["flips"] == {"right_to_wrong": 0, "wrong_to_right": 0}


def test_no_row_of_the_users_data_ships_unasked(run: Any, graph: Graph, out: Path) -> None:
    texts = [json.loads(line)["text"] for line in (run.dataset.path / "validation.jsonl").read_text("utf-8").splitlines()]
    bundle(run, graph, out, export__schemes=["fp32"])
    shipped = "".join(path.read_text("utf-8", errors="ignore") for path in out.rglob("*") if path.is_file() and path.suffix != ".onnx")
    assert not [text for text in texts if text in shipped]
    asked = out.parent / "asked"
    asked.mkdir()
    bundle(run, graph, asked, export__schemes=["fp32"], export__golden="validation")
    assert texts[0] in (asked / "golden.jsonl").read_text("utf-8")


def test_the_float_graph_ships_when_int8_is_broken(run: Any, graph: Graph, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.sabotage(monkeypatch)
    monkeypatch.setattr("edgetune.fit.first.mendable", lambda *given: False)  # with enough layers in float even a broken scheme holds
    facts = bundle(run, graph, out, export__schemes=[*LOSSY, "fp32"])
    assert facts["scheme"] == "fp32"
    assert [(c["scheme"], c["passed"]) for c in facts["candidates"]] == [(LOSSY[0], False), (LOSSY[1], False), ("fp32", True)]


def test_nothing_ships_when_all_are_refused_and_what_would_help_does(
    run: Any, graph: Graph, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.sabotage(monkeypatch)
    monkeypatch.setattr("edgetune.fit.first.mendable", lambda *given: False)
    with pytest.raises(GateError, match="arm64: no candidate keeps its promise") as raised:
        bundle(run, graph, out, export__schemes=LOSSY, export__max_drop=0.01)
    assert raised.value.exit_code == 4
    assert [line.split(" (")[0] for line in raised.value.details] == ["fp32", *LOSSY]
    assert not (out / "edgetune.json").exists()
    found = re.fullmatch(r"the nearest is (\S+): --max-drop ([\d.]+) would let it pass", raised.value.mend or "")
    assert found
    assert bundle(run, graph, out, export__schemes=LOSSY, export__max_drop=float(found[2]))["scheme"] == found[1]


def test_strict_needs_proof_and_says_how_much_it_would_take(run: Any, graph: Graph, out: Path) -> None:
    with pytest.raises(GateError) as raised:
        bundle(run, graph, out, export__schemes=LOSSY, export__max_drop=0.0, export__strict=True)
    found = re.fullmatch(r"the nearest is (\S+): --max-drop ([\d.]+) would let it pass", raised.value.mend or "")
    assert found and float(found[2]) > 0.05, "some twenty rows prove little"
    facts = bundle(run, graph, out, export__schemes=LOSSY, export__max_drop=float(found[2]), export__strict=True)
    assert facts["scheme"] == found[1]
    assert facts["proven"]


def test_a_size_that_nothing_has(run: Any, graph: Graph, out: Path) -> None:
    with pytest.raises(GateError) as raised:
        bundle(run, graph, out, export__max_size_mb=0.01)
    found = re.fullmatch(r"--max-size ([\d.]+) would let the smallest in", raised.value.mend or "")
    assert found
    assert bundle(run, graph, out, export__max_size_mb=float(found[1]))["scheme"] == "int8-dynamic"


def test_memory_is_measured_and_a_broken_budget_refused(run: Any, graph: Graph, out: Path) -> None:
    with pytest.raises(GateError, match=r"arm64: memory_mb is [\d.]+, the budget is 1"):
        bundle(run, graph, out, export__schemes=["fp32"], export__max_memory_mb=1)


def test_latency_is_decided_on_that_hardware_alone(run: Any, graph: Graph, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "is_host", lambda device: False)
    facts = bundle(run, graph, out, export__schemes=["fp32"], export__max_latency_ms=1e-6)
    assert facts["budgets"] == {"latency_ms": {"allowed": 1e-6, "measured": "unmeasured"}}
    monkeypatch.setattr(stage, "is_host", lambda device: True)
    (out.parent / "again").mkdir()
    with pytest.raises(GateError, match="latency_ms is"):
        bundle(run, graph, out.parent / "again", export__schemes=["fp32"], export__max_latency_ms=1e-6)


def test_schemes_are_for_a_family(run: Any, graph: Graph, out: Path) -> None:
    with pytest.raises(RecipeError, match="scheme int4-int8-mixed is not for text-classification") as raised:
        bundle(run, graph, out, export__schemes=["int4-int8-mixed"])
    assert "int8-dynamic-per-channel" in (raised.value.mend or "") and "int4-int8-mixed" not in (raised.value.mend or "")


def test_the_minimum_runtime_is_the_larger_of_the_two(run: Any, graph: Graph, out: Path) -> None:
    device = target.load("arm64")
    newer = device.model_copy(update={"runtime": device.runtime.model_copy(update={"onnxruntime_min": "1.9"})})
    bundle(run, graph, out, newer, export__schemes=["fp32"])
    assert json.loads((out / "edgetune.json").read_text("utf-8"))["onnxruntime_min"] == "1.17", "1.9 is older than 1.17"


def test_the_graph_is_that_of_the_merged_model(run: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.graph import export as graphs

    monkeypatch.setattr(graphs, "EXPORTERS", {"torchscript": graphs._torchscript})
    facts = stage.graph(run.recipe, run.merged, 18, 9, out)
    model = onnx.load(out / "model.onnx")
    assert (facts["opset"], facts["ir"]) == (18, 9) == ({e.domain: e.version for e in model.opset_import}[""], model.ir_version)
    assert facts["max_error"] <= 1e-4
    assert facts["size_bytes"] == (out / "model.onnx").stat().st_size
