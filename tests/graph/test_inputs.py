"""Inputs as a target takes them: what changes in the graph, and that its answers do not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper

from edgetune.errors import StageError
from edgetune.graph import Plan, export, inputs, session

SHAPE_OPS = {"Shape", "Range", "Expand", "ConstantOfShape", "GatherElements", "GatherND", "Squeeze", "Concat"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return tiny.plan(tiny.classifier(tmp_path_factory.mktemp("classifier")))


@pytest.fixture(scope="module")
def traced(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export._dynamo(plan, path, 20)
    export._pin(path, plan, 20, 10)
    return path


def taken(path: Path) -> dict[str, tuple[str, list[Any]]]:
    return {entry.name: (entry.type, entry.shape) for entry in session.start(path).get_inputs()}


@pytest.mark.parametrize("sequence", [None, 64])
@pytest.mark.parametrize("ids", ["int64", "int32"])
def test_it_answers_as_pytorch_does(plan: Plan, traced: Path, tmp_path: Path, ids: Any, sequence: int | None) -> None:
    out = tmp_path / "model.onnx"
    inputs.convert(traced, out, ids=ids, sequence=sequence)
    onnx.checker.check_model(onnx.load(out), full_check=True)
    shape = [1, sequence] if sequence else ["batch_size", "sequence_length"]
    assert taken(out) == dict.fromkeys(("input_ids", "attention_mask"), (f"tensor({ids})", shape))
    assert export.parity(plan, out)[0] <= 1e-5


def test_parity_of_a_form_sees_a_wrong_graph(plan: Plan, traced: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    inputs.convert(traced, out, ids="int32", sequence=64)
    model = onnx.load(out)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    onnx.save(model, out)
    assert export.parity(plan, out)[0] > 1e-4


def test_fixed_shapes_leave_nothing_to_compute_from_shapes(traced: Path, tmp_path: Path) -> None:
    facts = inputs.convert(traced, tmp_path / "model.onnx", sequence=16)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert not SHAPE_OPS & kinds.keys()
    assert facts["nodes"]["after"] == sum(kinds.values()) < facts["nodes"]["before"]
    model = onnx.load(tmp_path / "model.onnx")
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (10, [("", 20)])


def test_a_lookup_reads_32_bits_as_they_are(tmp_path: Path) -> None:
    """And everything else, also in a graph inside, reads one Cast."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["input_ids"], ["inside"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inside", TensorProto.INT64, None)],
    )
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["input_ids", "input_ids"], ["twice"]),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch),
    ]
    shape = ["batch_size", "sequence_length"]
    outputs = [("rows", TensorProto.FLOAT, [*shape, 2]), ("floats", TensorProto.FLOAT, shape), ("twice", TensorProto.INT64, shape)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, shape), helper.make_tensor_value_info("yes", TensorProto.BOOL, [])],
        [
            *(helper.make_tensor_value_info(*output) for output in outputs),
            helper.make_tensor_value_info("chosen", TensorProto.INT64, shape),
        ],
        [numpy_helper.from_array(np.arange(10, dtype=np.float32).reshape(5, 2), "table")],
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "before.onnx")
    facts = inputs.convert(tmp_path / "before.onnx", tmp_path / "after.onnx", ids="int32")
    assert facts["casts"] == ["input_ids"]
    after = onnx.load(tmp_path / "after.onnx")
    onnx.checker.check_model(after)
    assert Counter(node.op_type for node in after.graph.node)["Cast"] == 2
    feeds = {"input_ids": np.array([[4, 0, 3]]), "yes": np.array(True)}
    expected = session.start(tmp_path / "before.onnx").run(None, feeds)
    found = session.start(tmp_path / "after.onnx").run(None, feeds | {"input_ids": feeds["input_ids"].astype(np.int32)})
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("index", "same"),
    [
        ([[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [1, 2]]], True),
        ([[[0, 0], [0, 2], [0, 1]], [[1, 0], [1, 1], [1, 2]]], False),
        ([[[1, 0], [1, 1], [1, 2]]], False),
    ],
)
def test_a_lookup_of_everything_in_order_is_a_reshape(tmp_path: Path, index: Any, same: bool) -> None:
    index = np.array(index, dtype=np.int64)
    nodes = [helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT), helper.make_node("GatherND", ["wide", "index"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(index.shape[:-1]))],
        [numpy_helper.from_array(index, "index")],
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "before.onnx")
    inputs.convert(tmp_path / "before.onnx", tmp_path / "after.onnx", sequence=3)
    assert [node.op_type for node in onnx.load(tmp_path / "after.onnx").graph.node] == ["Cast", "Reshape" if same else "GatherND"]
    feeds = {"x": np.arange(6).reshape(2, 3)}
    np.testing.assert_array_equal(*(session.start(tmp_path / name).run(None, feeds)[0] for name in ("before.onnx", "after.onnx")))


def test_a_dimension_that_stays_open_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch_size", "past_sequence_length"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, None)],
    )
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "before.onnx")
    with pytest.raises(StageError, match="past_sequence_length cannot have fixed shapes"):
        inputs.convert(tmp_path / "before.onnx", tmp_path / "after.onnx", sequence=8)


def test_scoring_a_graph_of_fixed_shapes(plan: Plan, traced: Path, tmp_path: Path) -> None:
    """Row by row, padded with the pad token, in 32 bits: as run.py feeds it."""
    inputs.convert(traced, tmp_path / "fixed.onnx", ids="int32", sequence=24)
    feeds = plan.feeds(plan.shapes[-1], 1)
    ids, mask = feeds["input_ids"][:, :20], feeds["attention_mask"][:, :20]
    expected = session.forward(traced)({"input_ids": ids, "attention_mask": mask})["logits"]
    np.testing.assert_allclose(
        session.forward(tmp_path / "fixed.onnx", pad_id=3)({"input_ids": ids, "attention_mask": mask})["logits"], expected, atol=1e-5
    )
    run = session.start(tmp_path / "fixed.onnx")
    parts = list(session.fitted({"input_ids": ids, "attention_mask": mask}, run, pad_id=3))
    assert len(parts) == len(ids)
    assert {(value.dtype.name, value.shape) for part in parts for value in part.values()} == {("int32", (1, 24))}
    assert set(parts[0]["input_ids"][0, 20:]) == {3}
    assert set(parts[0]["attention_mask"][0, 20:]) == {0}
