"""The float graph equals PyTorch or is refused, and is what the target asked for."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from onnx import numpy_helper

from edgetune import progress
from edgetune.errors import GateError, StageError
from edgetune.graph import Plan, export, session

QUICK = {"torchscript": export._torchscript}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def plan(folder: Path) -> Plan:
    return tiny.plan(folder)


@pytest.fixture(scope="module")
def traced(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """By torch's current exporter."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    return export.export(tiny.plan(folder), path, 20, 10), path


def shown(model: onnx.ModelProto) -> dict[str, list[str | int]]:
    """Every input and output with its dimensions."""
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }


def test_the_current_exporter(traced: tuple[dict[str, Any], Path]) -> None:
    facts, path = traced
    assert facts["exporter"] == "dynamo"
    assert facts["refused"] == {}
    assert 0 < facts["max_error"] <= 1e-4
    assert (facts["opset"], facts["ir"], facts["shapes"]) == (20, 10, 12)
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"], "one file, nothing left over"


def test_what_is_written(traced: tuple[dict[str, Any], Path]) -> None:
    model = onnx.load(traced[1])
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version == 10
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 20
    assert shown(model) == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "sequence_length"],
        "logits": ["batch_size", 4],
    }
    text = str(model)[:200_000]
    assert "/work" not in text and ".py" not in text, "no paths of the machine that traced it"
    assert not model.metadata_props and not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_the_last_resort_writes_the_same(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "EXPORTERS", QUICK)
    facts = export.export(plan, tmp_path / "model.onnx", 18, 8)
    model = onnx.load(tmp_path / "model.onnx")
    assert facts["exporter"] == "torchscript"
    assert model.ir_version == 8
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18
    assert shown(model)["input_ids"] == ["batch_size", "sequence_length"]


def changed(path: Path, change: Any) -> None:
    """`change(name, array)` on every float matrix of the graph."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)).astype(np.float32), tensor.name))
    onnx.save(model, path)


@pytest.mark.parametrize(("change", "least"), [(lambda w: w * 1.001, 1e-4), (np.zeros_like, 1e-2), (lambda w: w * np.nan, np.inf)])
def test_parity_sees_a_wrong_graph(folder: Path, plan: Plan, tmp_path: Path, change: Any, least: float) -> None:
    path = tiny.graph(folder, tmp_path / "model.onnx")
    assert export.parity(plan, path)[0] <= 1e-5
    changed(path, change)
    error, where = export.parity(plan, path)
    assert error >= least
    assert where.startswith("logits Shape(batch=")


def test_parity_sees_a_graph_that_ignores_the_mask(plan: Plan, tmp_path: Path) -> None:
    """Right on every shape but the padded ones."""

    class Deaf(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = plan.module

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.inner(input_ids, torch.ones_like(attention_mask) + 0 * attention_mask)

    export._torchscript(dataclasses.replace(plan, module=Deaf().eval(), traced=None), tmp_path / "model.onnx", 20)
    error, where = export.parity(plan, tmp_path / "model.onnx")
    assert error > 1e-3
    assert "padded=True" in where


def other(plan: Plan) -> Plan:
    """The plan of a model that answers something else."""
    model = tiny.plan(Path(plan.module.model.config._name_or_path))
    with torch.no_grad():
        model.module.model.classifier.bias += 1
    return model


def test_a_wrong_graph_is_passed_over(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(plan: Plan, path: Path, opset: int) -> None:
        export._torchscript(other(plan), path, opset)

    monkeypatch.setattr(export, "EXPORTERS", {"new": wrong, **QUICK})
    with progress.collecting() as notes:
        facts = export.export(plan, tmp_path / "model.onnx", 20, 10)
    assert facts["exporter"] == "torchscript"
    assert re.match(r"differs from PyTorch by 0\.\d+ at logits Shape\(", facts["refused"]["new"])
    assert notes == [f"exporter new {facts['refused']['new']}"]
    assert export.parity(plan, tmp_path / "model.onnx")[0] <= 1e-5, "the right graph is the one on disk"


def test_an_exporter_that_fails_or_writes_another_opset_is_passed_over(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(plan: Plan, path: Path, opset: int) -> None:
        raise torch.onnx.OnnxExporterError("no such operator\nand more")

    def old(plan: Plan, path: Path, opset: int) -> None:
        export._torchscript(plan, path, 18)

    monkeypatch.setattr(export, "EXPORTERS", {"broken": broken, "old": old, **QUICK})
    facts = export.export(plan, tmp_path / "model.onnx", 20, 10)
    assert facts["exporter"] == "torchscript"
    assert facts["refused"] == {
        "broken": "could not trace: no such operator",
        "old": "could not trace: it wrote opset 18, the target asks for 20",
    }


def test_no_equal_graph_is_a_refusal(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(plan: Plan, path: Path, opset: int) -> None:
        export._torchscript(other(plan), path, opset)

    def broken(plan: Plan, path: Path, opset: int) -> None:
        raise RuntimeError

    monkeypatch.setattr(export, "EXPORTERS", {"wrong": wrong, "broken": broken})
    with pytest.raises(GateError, match="no exporter gave a graph that equals PyTorch") as raised:
        export.export(plan, tmp_path / "model.onnx", 20, 10)
    assert [detail.split(":")[0] for detail in raised.value.details] == ["wrong", "broken"]
    assert raised.value.exit_code == 4
    monkeypatch.setattr(export, "EXPORTERS", {"broken": broken})
    with pytest.raises(StageError):
        export.export(plan, tmp_path / "model.onnx", 20, 10)


def test_a_full_disk_is_not_taken_for_a_model_that_cannot_be_traced(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(plan: Plan, path: Path, opset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "EXPORTERS", {"full": full, **QUICK})
    with pytest.raises(OSError, match="No space left"):
        export.export(plan, tmp_path / "model.onnx", 20, 10)


def test_the_session_answers_as_the_model(folder: Path, plan: Plan, tmp_path: Path) -> None:
    forward = session.forward(tiny.graph(folder, tmp_path / "model.onnx"))
    feeds = plan.feeds(plan.shapes[-1], 0)
    with torch.no_grad():
        expected = plan.module(*(torch.from_numpy(feeds[name]) for name in plan.inputs))[0].numpy()
    assert np.allclose(forward({name: feeds[name] for name in ("input_ids", "attention_mask")})["logits"], expected, atol=1e-5)
