"""16-bit activations and 8-bit weights in every operator: what is written, and that padding does not swallow the scores."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgetune import quant
from edgetune.errors import StageError
from edgetune.graph import session
from edgetune.quant import Context, npu

from .conftest import rows

LENGTH = 24
SCHEME = quant.get("u16u8-static")


@pytest.fixture(scope="module")
def fixed(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier for one text of 24 tokens."""
    from onnxruntime.tools.onnx_model_utils import make_dim_param_fixed

    model = onnx.load(graph)
    make_dim_param_fixed(model.graph, "batch_size", 1)
    make_dim_param_fixed(model.graph, "sequence_length", LENGTH)
    folder = tmp_path_factory.mktemp("fixed")
    onnx.save(model, folder / "open.onnx")
    import onnxruntime

    options = onnxruntime.SessionOptions()  # what is computed from shapes is constant now
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "model.onnx")
    onnxruntime.InferenceSession(str(folder / "open.onnx"), options, providers=["CPUExecutionProvider"])
    return folder / "model.onnx"


@pytest.fixture(scope="module")
def written(fixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "model.onnx"
    facts = SCHEME.apply(fixed, out, Context(calibration=rows(48)))
    assert facts["masks_softened"] >= 1 and facts["left_float"] == 0
    return out


def test_every_layer_has_quantised_inputs(written: Path) -> None:
    model = onnx.load(written)
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm", "Softmax", "LayerNormalization"):
            assert made[node.input[0]] == "DequantizeLinear", node.name
    kinds = {t.data_type for t in model.graph.initializer if len(t.dims) == 2 and t.dims[0] > 1}
    assert TensorProto.UINT8 in kinds and TensorProto.FLOAT not in kinds
    zeros = {t.name: t.data_type for t in model.graph.initializer}
    assert TensorProto.UINT16 in {zeros[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear"}


def test_no_range_is_that_of_the_lowest_float(written: Path) -> None:
    scales = [numpy_helper.to_array(t) for t in onnx.load(written).graph.initializer if t.name.endswith("_scale")]
    assert max(float(scale.max()) for scale in scales) < 1, "scores keep their steps beside the mask"


def test_answers_stay_near_with_padding(fixed: Path, written: Path) -> None:
    given = list(npu.fitted(rows(40)(), onnx.load(fixed).graph))
    assert {row["input_ids"].shape for row in given} == {(1, LENGTH)}
    exact, near = (np.concatenate([run.run(["logits"], row)[0] for row in given]) for run in map(session.start, (fixed, written)))
    assert np.corrcoef(exact.ravel(), near.ravel())[0, 1] > 0.995
    assert not np.array_equal(exact, near)


def test_rows_are_cut_and_padded(fixed: Path) -> None:
    long = {name: np.ones((1, 40), dtype=np.int64) for name in ("input_ids", "attention_mask")}
    short = {name: np.ones((1, 3), dtype=np.int64) for name in long}
    cut, padded = npu.fitted(iter([long, short]), onnx.load(fixed).graph)
    assert cut["input_ids"].sum() == LENGTH
    assert padded["attention_mask"].tolist() == [[1, 1, 1, *[0] * (LENGTH - 3)]]


def test_open_shapes_are_refused(graph: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="fixed shapes") as caught:
        SCHEME.apply(graph, tmp_path / "model.onnx", Context(calibration=rows(2)))
    assert caught.value.mend and "static" in caught.value.mend


def test_without_rows_it_refuses(fixed: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="there are none"):
        SCHEME.apply(fixed, tmp_path / "model.onnx", Context())


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("onnxruntime_qnn") is None and os.environ.get("CI") != "true",
    reason="the package onnxruntime-qnn (extra qnn) is not installed",
)
def test_all_of_it_runs_on_the_simulated_npu(fixed: Path, written: Path, tmp_path: Path) -> None:
    from edgetune.runtime import qnn

    placed = qnn.compile(written, tmp_path / "model.onnx", min_share=0.9)["placement"]
    assert placed["share"] >= 0.95 and placed["pieces"] == 1
    given = list(npu.fitted(rows(8)(), onnx.load(fixed).graph))
    exact, near = (
        np.concatenate([run.run(["logits"], row)[0] for row in given]) for run in (session.start(fixed), qnn.run(tmp_path / "model.onnx"))
    )
    assert np.corrcoef(exact.ravel(), near.ravel())[0, 1] > 0.98
