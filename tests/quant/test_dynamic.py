"""Dynamic int8: what is quantised, in how many bits, and how near it stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper

from edgetune import quant
from edgetune.errors import RecipeError, StageError
from edgetune.graph import session
from edgetune.quant import Context, dynamic

SCHEMES = ("int8-dynamic", "int8-dynamic-per-channel")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return tiny.graph(tiny.classifier(folder), folder / "model.onnx")


def quantised(graph: Path, out: Path, scheme: str, saturates: bool = False) -> tuple[dict[str, Any], onnx.ModelProto]:
    facts = quant.get(scheme).apply(graph, out, Context(saturates=saturates))
    return facts, onnx.load(out)


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The 8-bit matrices, by name."""
    kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type in kinds and len(t.dims) == 2}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_matrix_and_the_embedding_are_int8(graph: Path, tmp_path: Path, scheme: str) -> None:
    facts, model = quantised(graph, tmp_path / "model.onnx", scheme)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QAttention") == 2, "one a layer, with its three projections"
    assert kinds.count("MatMulInteger") == 2 * 3 + 2, "what comes after it, two of the feed-forward; pooler and classifier"
    assert facts["quantised"] == 10
    assert facts["left_float"] == kinds.count("MatMul") == 0
    table = max(weights(model).values(), key=lambda array: array.shape[0])
    config = tiny.plan(graph.parent).module.model.config
    assert table.shape == (config.vocab_size, 32), "the embedding too"
    largest = max((t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT), key=lambda t: int(np.prod(t.dims)))
    assert np.prod(largest.dims) < 32 * 64, "no float matrix of a layer is left"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("saturates", "bits", "most"), [(False, 8, 127), (True, 7, 64)])
def test_weights_have_seven_bits_where_sums_saturate(
    graph: Path, tmp_path: Path, scheme: str, saturates: bool, bits: int, most: int
) -> None:
    facts, model = quantised(graph, tmp_path / "model.onnx", scheme, saturates)
    used = {name: array.view(np.int8) for name, array in weights(model).items() if array.dtype == np.int8}
    assert facts["weight_bits"] == bits
    assert len(used) == 10
    assert max(int(np.abs(array.astype(int)).max()) for array in used.values()) in range(most - 2, most + 1)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_answers_stay_near(graph: Path, tmp_path: Path, scheme: str) -> None:
    quantised(graph, tmp_path / "model.onnx", scheme)
    ids = np.random.default_rng(0).integers(5, 100, (32, 12))
    exact, near = (
        session.forward(path)({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"]
        for path in (graph, tmp_path / "model.onnx")
    )
    assert np.corrcoef(exact.ravel(), near.ravel())[0, 1] > 0.98
    assert not np.array_equal(exact, near)


def test_one_scale_a_column(graph: Path, tmp_path: Path) -> None:
    def scales(scheme: str) -> list[int]:
        _, model = quantised(graph, tmp_path / f"{scheme}.onnx", scheme)
        tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        return [
            array.size
            for name, array in tensors.items()
            if name.endswith("_scale") and name.removesuffix("_scale") + "_quantized" in tensors
        ]

    assert max(scales("int8-dynamic")) == 1
    assert sorted(scales("int8-dynamic-per-channel"))[-7:] == [32, 32, 32, 64, 64, 96, 96], "columns of every layer"


def test_a_quarter_of_the_size(tmp_path: Path) -> None:
    """Of weights alone: on a model whose weights are most of the file."""
    chance = np.random.default_rng(0)
    table, matrix = (
        numpy_helper.from_array(chance.normal(size=shape).astype(np.float32), name) for shape, name in (((3000, 64), "e"), ((64, 64), "w"))
    )
    nodes = [onnx.helper.make_node("Gather", ["e", "ids"], ["x"]), onnx.helper.make_node("MatMul", ["x", "w"], ["y"])]
    ids = onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 64])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", [ids], [y], [table, matrix]), opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.save(model, tmp_path / "float.onnx")
    dynamic.int8(tmp_path / "float.onnx", tmp_path / "small.onnx", Context(), per_channel=False)
    ratio = (tmp_path / "small.onnx").stat().st_size / (tmp_path / "float.onnx").stat().st_size
    assert 0.24 < ratio < 0.27


def test_nothing_to_quantise(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    kinds = [value(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy"]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "g", kinds[:1], kinds[1:]), opset_imports=[onnx.helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.save(model, tmp_path / "float.onnx")
    with pytest.raises(StageError, match="found no MatMul"):
        dynamic.int8(tmp_path / "float.onnx", tmp_path / "small.onnx", Context(), per_channel=False)


def test_the_float_scheme_is_a_copy(graph: Path, tmp_path: Path) -> None:
    assert quant.get("fp32").apply(graph, tmp_path / "model.onnx", Context(saturates=True)) == {}
    assert (tmp_path / "model.onnx").read_bytes() == graph.read_bytes()


def test_opset_ir_and_names_stay(graph: Path, tmp_path: Path) -> None:
    before = onnx.load(graph)
    for scheme in SCHEMES:
        _, after = quantised(graph, tmp_path / "model.onnx", scheme)
        assert after.ir_version == before.ir_version
        assert {e.domain: e.version for e in after.opset_import}[""] == 20
        assert [str(v) for v in (*after.graph.input, *after.graph.output)] == [str(v) for v in (*before.graph.input, *before.graph.output)]


def test_an_unknown_scheme() -> None:
    with pytest.raises(RecipeError, match=r'unknown scheme "int8-dynamc" \(did you mean "int8-dynamic"\?\)'):
        quant.get("int8-dynamc")
