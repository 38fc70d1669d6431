"""Fewer steps, the same answers: what is fused, what is left alone, and that a pass that changes an answer does not stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from edgetune.graph import passes, session


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return tiny.graph(tiny.classifier(folder), folder / "model.onnx")


@pytest.fixture(scope="module")
def fused(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, changed = passes.fuse(onnx.load(graph))
    assert changed == {"attention": 2, "residual": 5}
    path = tmp_path_factory.mktemp("fused") / "model.onnx"
    onnx.save(model, path)
    return path


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_an_attention_is_one_node(graph: Path, fused: Path) -> None:
    before, after = kinds(onnx.load(graph)), kinds(onnx.load(fused))
    assert after["Attention"] == before["Softmax"] == 2
    assert not {"Softmax", "Transpose"} & set(after)
    assert after["MatMul"] == before["MatMul"] - 2 * 5, "three projections and two products a layer"
    onnx.checker.check_model(onnx.load(graph))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 64), st.integers(0, 2**16))
def test_answers_are_the_same_at_any_shape(graph: Path, fused: Path, batch: int, length: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    ids = chance.integers(0, 60, (batch, length))
    mask = (np.arange(length)[None] < chance.integers(1, length + 1, (batch, 1))).astype(np.int64)
    exact, found = (session.forward(path)({"input_ids": ids, "attention_mask": mask})["logits"] for path in (graph, fused))
    assert np.abs(exact - found).max() <= 1e-4 * max(1.0, np.abs(exact).max())


def test_no_residual_becomes_a_skip_layer_normalization(fused: Path, tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(fused), options, providers=["CPUExecutionProvider"])
    assert not [kind for kind in kinds(onnx.load(tmp_path / "loaded.onnx")) if "Skip" in kind]


def test_layers_that_are_kept_stay_nodes_of_their_own(graph: Path) -> None:
    model = onnx.load(graph)
    kept = next(node.name for node in model.graph.node if "layer.1" in node.name and "key" in node.name and node.op_type == "MatMul")
    found, changed = passes.fuse(model, {kept})
    assert changed["attention"] == 1
    assert kept in {node.name for node in found.graph.node}


def test_queries_from_elsewhere_keep_their_projections(graph: Path) -> None:
    """As where the last layer computes the first token only."""
    model = onnx.load(graph)
    query = next(node for node in model.graph.node if "layer.1/attention/self/query" in node.name and node.op_type == "MatMul")
    model.graph.node.insert(
        next(i for i, node in enumerate(model.graph.node) if node.name == query.name),
        onnx.helper.make_node("Identity", [query.input[0]], ["elsewhere"], name="elsewhere"),
    )
    query.input[0] = "elsewhere"
    found, changed = passes.fuse(model)
    assert changed["attention"] == 2
    assert kinds(found)["Attention"] == kinds(found)["MultiHeadAttention"] == 1


def test_a_pass_that_changes_an_answer_does_not_stay(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: onnx.ModelProto, keep: Collection[str]) -> int:
        scores = next(node for node in model.graph.node if node.op_type == "Softmax")
        scores.attribute[0].i = 1
        return 1

    monkeypatch.setattr(passes, "PASSES", {"wrong": wrong, "residual": passes.residual})
    found, changed = passes.fuse(onnx.load(graph))
    assert set(changed) == {"residual"}
    assert kinds(found)["Softmax"] == 2


def test_the_scale_is_the_models_own(graph: Path) -> None:
    model = onnx.load(graph)
    made = {name: node for node in model.graph.node for name in node.output}
    for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
        scaled = made[made[softmax.input[0]].input[0]]
        model.graph.initializer.append(numpy_helper.from_array(np.array(0.9, dtype=np.float32), f"{scaled.name}_own"))
        scaled.op_type, scaled.input[1] = "Mul", f"{scaled.name}_own"
    found, changed = passes.fuse(model)
    assert changed["attention"] == 2
    scales = [a.f for node in found.graph.node if node.op_type == "Attention" for a in node.attribute if a.name == "scale"]
    assert scales == pytest.approx([0.9, 0.9])


def test_a_graph_with_other_inputs_is_left_alone() -> None:
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Softmax", ["x"], ["y"])
    floats = [value(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", floats[:1], floats[1:]))
    assert passes.fuse(model) == (model, {})
