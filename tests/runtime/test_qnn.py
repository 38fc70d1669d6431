"""Ahead of time for the HTP: which nodes are on it, and what happens when they are not."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper

from edgetune import pipeline
from edgetune.errors import GateError, MissingExtra, RequestError
from edgetune.profile import CPU
from edgetune.runtime import qnn
from edgetune.runtime.measure import in_turns
from edgetune.runtime.verify import verify

HERE = find_spec("onnxruntime_qnn") is not None
simulated = pytest.mark.skipif(
    not HERE and os.environ.get("CI") != "true", reason="the package onnxruntime-qnn (extra qnn) is not installed"
)


def save(path: Path, nodes: list[onnx.NodeProto]) -> Path:
    value = helper.make_tensor_value_info
    weight = numpy_helper.from_array(np.eye(8, dtype=np.float32), "w")
    ends = [value(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]), opset_imports=domains, ir_version=10), path)
    return path


def work(kinds: list[str]) -> list[onnx.NodeProto]:
    names = ["x", *(f"t{i}" for i in range(1, len(kinds))), "y"]
    return [
        helper.make_node(kind, [names[i], *(["w"] if kind == "MatMul" else [])], [names[i + 1]], name=f"n{i}")
        for i, kind in enumerate(kinds)
    ]


def test_placement_counts_work_and_names_what_fell_back(tmp_path: Path) -> None:
    graph = save(tmp_path / "a.onnx", work(["MatMul", "Relu", "Softmax", "Erf"]))
    context = helper.make_node("EPContext", ["x"], ["c"], name="ctx", domain="com.microsoft")
    compiled = save(tmp_path / "b.onnx", [context, helper.make_node("Erf", ["c"], ["y"], name="n3")])
    assert qnn.placement(graph, compiled) == {
        **{"provider": qnn.PROVIDER, "nodes": 4, "taken": 3, "share": 0.75, "pieces": 1},
        **{"left": {"Erf": 1}, "fell_back": [("n3", "Erf")]},
    }


@pytest.mark.skipif(HERE, reason="onnxruntime-qnn is installed")
def test_without_the_package_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra) as caught:
        qnn.compile(save(tmp_path / "a.onnx", work(["Relu"])), tmp_path / "b.onnx")
    assert caught.value.mend == "pip install 'edgetune[qnn]'"


@pytest.mark.slow
@simulated
def test_a_float_operator_that_htp_lacks_falls_back_and_the_floor_refuses(tmp_path: Path) -> None:
    graph = save(tmp_path / "a.onnx", work(["MatMul", "Relu", "Erf"]))
    found = qnn.compile(graph, tmp_path / "b.onnx")
    placed = found["placement"]
    assert ("n2", "Erf") in placed["fell_back"] and 0 < placed["share"] < 1 and found["binary_bytes"] > 0
    with pytest.raises(GateError, match="the target asks for 95%") as caught:
        qnn.compile(graph, tmp_path / "b.onnx", min_share=0.95)
    assert "on the CPU: n2 (Erf)" in caught.value.details


@pytest.mark.slow
@simulated
def test_from_the_data_to_a_bundle_that_the_simulator_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = pipeline.run(tiny.recipe(tiny.problem(tmp_path), export__targets=["qualcomm-htp"], export__max_drop=0.3), "export")
    assert "LIBNATIVE" not in capfd.readouterr().out, "what Qualcomm's libraries print is no answer"
    bundle = run / "bundles" / "qualcomm-htp"
    facts = json.loads((bundle / "edgetune.json").read_text("utf-8"))
    assert facts["scheme"] == "u16u8-static" and facts["compiled"]["placement"]["share"] >= 0.9
    assert {"compiled/model.onnx", "compiled/model_qnn.bin", "onnx/model_quantized.onnx"} <= facts["sha256"].keys()
    assert {(item["dtype"], tuple(item["shape"])) for item in facts["inputs"]} == {("int32", (1, facts["max_length"]))}
    golden = verify(bundle)["golden"]
    assert (golden["provider"], golden["native"], golden["rows"]) == (qnn.PROVIDER, False, 32)
    assert golden["placement"]["share"] == facts["compiled"]["placement"]["share"]
    assert verify(bundle, provider=CPU)["golden"]["native"] is True, "any onnxruntime runs the graph that is not compiled"
    with pytest.raises(RequestError, match="cannot be measured") as caught:
        in_turns([bundle], rounds=1)
    assert "simulator" in caught.value.details[-1]
