"""Rows that are not int8 of their own, and the names under which what was made is kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetune import quant
from edgetune.graph import session
from edgetune.quant import Context
from edgetune.quant.calibration import feeds

from .conftest import examples, rows

IDS = np.random.default_rng(3).integers(5, 100, (16, 12))


def answers(path: Path) -> np.ndarray:
    return session.forward(path)({"input_ids": IDS, "attention_mask": np.ones_like(IDS)})["logits"]


def kinds(path: Path) -> dict[int, int]:
    """Numbers in the initializers, by type."""
    found: dict[int, int] = {}
    for tensor in onnx.load(path).graph.initializer:
        found[tensor.data_type] = found.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    return found


def test_half_precision_halves_and_keeps_inputs_and_outputs(graph: Path, tmp_path: Path) -> None:
    quant.get("fp16").apply(graph, tmp_path / "model.onnx")
    before, after = onnx.load(graph), onnx.load(tmp_path / "model.onnx")
    assert [str(v) for v in (*after.graph.input, *after.graph.output)] == [str(v) for v in (*before.graph.input, *before.graph.output)]
    numbers = kinds(tmp_path / "model.onnx")
    assert numbers[onnx.TensorProto.FLOAT16] > 100 * numbers.get(onnx.TensorProto.FLOAT, 0)
    exact, near = answers(graph), answers(tmp_path / "model.onnx")
    assert 0 < np.abs(exact - near).max() < 0.02 * np.abs(exact).max()


def test_half_precision_leaves_the_named_operators_alone(graph: Path, tmp_path: Path) -> None:
    facts = quant.get("fp16").apply(graph, tmp_path / "model.onnx", Context(float_ops=("Softmax", "Einsum")))
    assert facts["kept_float"] == ["Softmax"]
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    made = {name: node for node in nodes for name in node.output}
    softmaxes = [node for node in nodes if node.op_type == "Softmax"]
    assert len(softmaxes) == 2
    for node in softmaxes:
        cast = made[node.input[0]]
        assert cast.op_type == "Cast" and cast.attribute[0].i == onnx.TensorProto.FLOAT


def test_padding_is_still_masked_in_half_precision(graph: Path, tmp_path: Path) -> None:
    """The lowest float32 does not exist in 16 bits; as -65504 it must still hide what is padded."""
    quant.get("fp16").apply(graph, tmp_path / "model.onnx")
    run = session.forward(tmp_path / "model.onnx")
    padded = np.concatenate([IDS, np.zeros((16, 5), dtype=np.int64)], axis=1)
    mask = (np.arange(17) < 12).astype(np.int64)[None].repeat(16, 0)
    assert np.allclose(run({"input_ids": padded, "attention_mask": mask})["logits"], answers(tmp_path / "model.onnx"), atol=0.02)


def test_unsigned_weights_keep_eight_bits_where_sums_saturate(graph: Path, tmp_path: Path) -> None:
    for saturates in (False, True):
        facts = quant.get("uint8-dynamic-per-channel").apply(graph, tmp_path / f"{saturates}.onnx", Context(saturates=saturates))
        assert facts["weight_bits"] == 8
    assert (tmp_path / "True.onnx").read_bytes() == (tmp_path / "False.onnx").read_bytes()
    assert onnx.TensorProto.INT8 not in kinds(tmp_path / "True.onnx")
    assert np.corrcoef(answers(graph).ravel(), answers(tmp_path / "True.onnx").ravel())[0, 1] > 0.98


def test_a_four_bit_embedding_beside_dynamic_layers(graph: Path, tmp_path: Path) -> None:
    facts = quant.get("int8-dynamic-embedding4").apply(graph, tmp_path / "small.onnx")
    quant.get("int8-dynamic-per-channel").apply(graph, tmp_path / "plain.onnx")
    small = onnx.load(tmp_path / "small.onnx").graph
    operators, kinds = [node.op_type for node in small.node], {tensor.name: tensor.data_type for tensor in small.initializer}
    [scales] = [kind for name, kind in kinds.items() if name.endswith("_scales")]
    assert scales == onnx.TensorProto.FLOAT16
    assert facts["quantised"] == operators.count("MatMulInteger") + operators.count("QAttention") == 10
    assert operators.count("GatherBlockQuantized") == 1
    assert np.corrcoef(answers(graph).ravel(), answers(tmp_path / "small.onnx").ravel())[0, 1] > 0.97


@pytest.mark.parametrize(("scheme", "near"), [("int8-weight", 0.995), ("int4-block32", 0.7)])
def test_weight_only_takes_every_layer_of_an_encoder(graph: Path, tmp_path: Path, scheme: str, near: float) -> None:
    facts = quant.get(scheme).apply(graph, tmp_path / "model.onnx")
    assert sum(facts["weights"].values()) == 2 * 6 + 2 + 1, "pooler and classifier too, which are transposed Gemms"
    assert facts["kept_float"] == {}
    assert np.corrcoef(answers(graph).ravel(), answers(tmp_path / "model.onnx").ravel())[0, 1] > near


def test_a_kept_layer_keeps_its_whole_attention_apart(graph: Path, tmp_path: Path) -> None:
    linear = [node.name for node in onnx.load(graph).graph.node if node.op_type in ("MatMul", "Gemm")]
    kept = {next(name for name in linear if "layer.0/attention/self/key" in name), next(name for name in linear if "pooler" in name)}
    facts = quant.get("int8-dynamic-per-channel").apply(graph, tmp_path / "model.onnx", Context(keep_float=frozenset(kept)))
    assert (facts["quantised"], facts["left_float"]) == (10, 4), "two more projections in int8, two products of activations, key and pooler"


def test_what_changes_the_file_changes_the_name() -> None:
    static, dynamic, plain = (quant.get(name) for name in ("int8-static", "int8-dynamic", "fp32"))
    contexts = [
        Context(),
        Context(saturates=True),
        Context(calibration=rows(4)),
        Context(calibration=rows(5)),
        Context(calibration=partial(feeds, examples(4, seed=9))),
        Context(keep_float=frozenset({"a", "b"})),
        Context(keep_float=frozenset({"a"})),
    ]
    assert len({static.key(context) for context in contexts}) == len(contexts)
    assert len({dynamic.key(context) for context in contexts}) == 4, "rows do not matter to it"
    assert {plain.key(context) for context in contexts} == {"fp32"}
    assert static.key(Context(calibration=rows(4))) == static.key(Context(calibration=rows(4)))
    assert dynamic.key(Context()) == "int8-dynamic"
