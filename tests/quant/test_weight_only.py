"""Block quantisation against its own numbers unpacked by hand; tied weights once; and the real decoder's sizes and perplexity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.errors import StageError
from edgetune.graph import session
from edgetune.quant import Context, weight_only

ROWS = 50


def weight(name: str, *shape: int) -> onnx.TensorProto:
    seed = sum(name.encode())
    return numpy_helper.from_array(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) * 0.1, name)


def tiny(path: Path, width: int = 64, tied: bool = True) -> Path:
    """embedding -> value projection (into the cache) -> Gemm with bias -> head, tied through a Transpose or with weights of its own."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], name="embed"),
        helper.make_node("MatMul", ["x", "v"], ["projected"], name="value"),
        helper.make_node("Concat", ["past_key_values.0.value", "projected"], ["present.0.value"], axis=1),
        helper.make_node("Reshape", ["projected", "flat"], ["y"]),
        helper.make_node("Gemm", ["y", "up", "bias"], ["z"], name="up_projection"),
        *([helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0])] if tied else []),
        helper.make_node("MatMul", ["z", "turned" if tied else "head"], ["logits"], name="lm_head"),
    ]
    tensors = [weight("table", ROWS, width), weight("v", width, 32), weight("up", 32, width), weight("bias", width)]
    tensors += [numpy_helper.from_array(np.array([-1, 32]), "flat"), *([] if tied else [weight("head", width, ROWS)])]
    cached = ["batch_size", "past_sequence_length", 32]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            helper.make_tensor_value_info("past_key_values.0.value", TensorProto.FLOAT, cached),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["tokens", ROWS]),
            helper.make_tensor_value_info("present.0.value", TensorProto.FLOAT, ["batch_size", "total_sequence_length", 32]),
        ],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def unpacked(found: dict[str, np.ndarray], name: str, bits: int) -> np.ndarray:
    """The [N, K] float values that the stored bytes stand for, by the layout in onnxruntime's ContribOperators.md."""
    data, scales, zeros = (found[f"{name}{part}"] for part in ("_q", "_scales", "_zeros"))
    if bits == 4:
        data = np.stack([data & 15, data >> 4], -1).reshape(*data.shape[:2], -1)
        zeros = np.stack([zeros & 15, zeros >> 4], -1).reshape(len(zeros), -1)[:, : scales.shape[1]]
    values = (data.astype(np.float32) - zeros[..., None].astype(np.float32)) * scales[..., None]
    return values.reshape(len(values), -1)


def answers(path: Path) -> dict[str, np.ndarray]:
    feeds = {"input_ids": np.arange(12).reshape(2, 6), "past_key_values.0.value": np.zeros((2, 0, 32), np.float32)}
    return dict(zip(("logits", "present.0.value"), session.start(path).run(["logits", "present.0.value"], feeds), strict=True))


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("width", [64, 48])  # blocks of 32, and of 16 with an odd number of them
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_computes_with_the_values_that_are_stored(tmp_path: Path, bits: int, tied: bool, width: int) -> None:
    path, out = tiny(tmp_path / "model.onnx", width, tied), tmp_path / "out.onnx"
    facts = weight_only.block(path, out, Context(), bits=bits)
    assert facts["weights"] == {f"int{bits}": 3 if tied else 4} and facts["kept_float"] == {}
    assert facts["bytes"] == out.stat().st_size
    found = tensors(out)
    table, v, up = (unpacked(found, name, bits) for name in ("table", "v", "up"))
    head = table if tied else unpacked(found, "head", bits)
    x = table[np.arange(12)]
    expected_v = x @ v.T
    logits = (expected_v @ up.T + found["bias"]) @ head.T
    got = answers(out)
    assert np.abs(got["present.0.value"].reshape(12, 32) - expected_v).max() <= 0.02 * np.abs(expected_v).max()  # 8-bit activations
    assert np.abs(got["logits"] - logits).max() <= 0.03 * np.abs(logits).max()
    step = 1.01 / (2**bits - 1)  # of each block's range, at most 0.5 of it lost (0.75 where the range is stretched to hold zero)
    for name, dense in (("table", table), ("v", v.T), ("up", up.T)):
        original = tensors(path)[name]
        assert 0 < np.abs(dense - original).max() <= step * np.ptp(original)


def test_eight_bits_are_nearer_than_four(tmp_path: Path) -> None:
    path = tiny(tmp_path / "model.onnx")
    exact = answers(path)["logits"]
    errors = {}
    for bits in (4, 8):
        weight_only.block(path, tmp_path / f"{bits}.onnx", Context(), bits=bits)
        errors[bits] = np.abs(answers(tmp_path / f"{bits}.onnx")["logits"] - exact).mean() / np.abs(exact).mean()
    assert errors[8] < 0.03 < errors[4] < 0.3


@pytest.mark.parametrize("bits", [4, 8])
def test_a_tied_head_and_the_embedding_share_the_bytes(tmp_path: Path, bits: int) -> None:
    weight_only.block(tiny(tmp_path / "model.onnx"), tmp_path / "out.onnx", Context(), bits=bits)
    nodes = {node.name: node for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert list(nodes["lm_head"].input[1:]) == ["table_q", "table_scales", "table_zeros"]
    assert list(nodes["embed"].input[2:]) == ["table_scales", "table_zeros"]
    assert nodes["embed_rows"].input[0] == "table_q" and nodes["embed_rows"].output[0] == nodes["embed"].input[0]
    assert not [name for name, array in tensors(tmp_path / "out.onnx").items() if array.dtype == np.float32 and array.shape == (ROWS, 64)]


def test_only_blocks_are_left(tmp_path: Path) -> None:
    weight_only.block(tiny(tmp_path / "model.onnx"), tmp_path / "out.onnx", Context())
    model = onnx.load(tmp_path / "out.onnx")
    kinds = operators(tmp_path / "out.onnx")
    assert kinds.count("MatMulNBits") == 3 and kinds.count("GatherBlockQuantized") == 1
    assert not {"MatMul", "Gemm", "Gather", "Transpose"} & set(kinds)
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert {a.i for node in products for a in node.attribute if a.name == "accuracy_level"} == {4}
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "com.microsoft": 1} and model.ir_version == 10
    assert [entry.name for entry in model.graph.output] == ["logits", "present.0.value"]


def test_the_input_is_not_touched(tmp_path: Path) -> None:
    path = tiny(tmp_path / "model.onnx")
    before = path.read_bytes()
    weight_only.mixed(path, tmp_path / "out.onnx", Context())
    assert path.read_bytes() == before


def test_widths_that_do_not_fit_stay_in_float_and_are_named(tmp_path: Path) -> None:
    facts = weight_only.block(tiny(tmp_path / "model.onnx", width=40), tmp_path / "out.onnx", Context())
    assert set(facts["kept_float"]) == {"table", "v"} and "40" in facts["kept_float"]["v"]
    assert facts["weights"] == {"int4": 1}  # `up` reads 32 values
    assert answers(tmp_path / "out.onnx")["logits"].shape == (12, ROWS)


def test_nothing_to_quantise_is_an_error(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [weight("w", 7, 3)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "model.onnx")
    with pytest.raises(StageError, match="no weight") as caught:
        weight_only.block(tmp_path / "model.onnx", tmp_path / "out.onnx", Context())
    assert "w: width 7" in caught.value.details[0]
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize(("width", "up"), [(64, 4), (16, 8)])
def test_mixed_gives_eight_bits_to_head_embedding_values_and_what_narrows(tmp_path: Path, width: int, up: int) -> None:
    """At width 16 the value projection widens (only the cache tells that it is one) and `up` narrows; at 64 it is the other way round."""
    weight_only.mixed(tiny(tmp_path / "model.onnx", width, tied=False), tmp_path / "out.onnx", Context())
    nodes = [node for node in onnx.load(tmp_path / "out.onnx").graph.node if node.domain]
    bits = {node.name: next(a.i for a in node.attribute if a.name == "bits") for node in nodes}
    assert bits == {"embed": 8, "value": 8, "lm_head": 8, "up_projection": up}


@pytest.mark.parametrize("scheme", [weight_only.block, weight_only.mixed])
def test_saturating_targets_get_the_same_graph(tmp_path: Path, scheme: Callable[..., dict[str, Any]]) -> None:
    path = tiny(tmp_path / "model.onnx")
    for saturates in (True, False):
        scheme(path, tmp_path / f"{saturates}.onnx", Context(saturates=saturates))
    assert (tmp_path / "True.onnx").read_bytes() == (tmp_path / "False.onnx").read_bytes()
