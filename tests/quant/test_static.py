"""Static int8: what is quantised, by which ranges, and that calibration holds one row at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper

from edgetune import quant
from edgetune.errors import StageError
from edgetune.graph import session
from edgetune.quant import Context, calibration

from .conftest import examples, rows

SCHEMES = ("int8-static", "int8-static-entropy", "int8-static-percentile")


def answers(path: Path) -> np.ndarray:
    run = session.forward(path)
    return np.concatenate([run(row)["logits"] for row in calibration.feeds(examples(40, seed=1))])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_layers_and_embedding_are_int8_and_answers_stay_near(graph: Path, tmp_path: Path, scheme: str) -> None:
    facts = quant.get(scheme).apply(graph, tmp_path / "model.onnx", Context(calibration=rows(32)))
    assert facts["quantised"] == 2 * 6 + 2
    assert facts["left_float"] == 2 * 2, "attention multiplies activations"
    assert facts["calibration"] == {"method": {"int8-static": "MinMax"}.get(scheme, scheme.rpartition("-")[2].title()), "rows": 32}
    floats = [t for t in onnx.load(tmp_path / "model.onnx").graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(t.dims)) for t in floats) < 32 * 64, "neither a layer nor the embedding is left in float"
    exact, near = answers(graph), answers(tmp_path / "model.onnx")
    assert np.corrcoef(exact.ravel(), near.ravel())[0, 1] > 0.97
    assert not np.array_equal(exact, near)


def test_the_ranges_are_those_of_the_rows(graph: Path, tmp_path: Path) -> None:
    """MinMax: the scale of an input that ranges over [low, high] is (high - low) / 255, over all rows, not the last ones."""
    watched = next(node.input[0] for node in onnx.load(graph).graph.node if node.op_type == "Gemm")
    model = onnx.load(graph)
    model.graph.output.append(onnx.helper.make_tensor_value_info(watched, onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "watched.onnx")
    run = session.start(tmp_path / "watched.onnx")
    given = list(rows(24)())
    seen = np.concatenate([run.run([watched], row)[0].ravel() for row in given])
    quant.get("int8-static").apply(graph, tmp_path / "model.onnx", Context(calibration=rows(24)))
    quantised = onnx.load(tmp_path / "model.onnx").graph
    scales = {t.name: numpy_helper.to_array(t) for t in quantised.initializer}
    scale = next(scales[node.input[1]] for node in quantised.node if node.op_type == "QuantizeLinear" and node.input[0] == watched)
    assert float(scale) == pytest.approx((seen.max() - seen.min()) / 255, rel=0.02)


def test_seven_bits_where_sums_saturate(graph: Path, tmp_path: Path) -> None:
    most = {}
    for saturates in (False, True):
        context = Context(saturates=saturates, calibration=rows(4))
        assert quant.get("int8-static").apply(graph, tmp_path / "model.onnx", context)["weight_bits"] == 8 - saturates
        tensors = onnx.load(tmp_path / "model.onnx").graph.initializer
        weights = [numpy_helper.to_array(t).astype(int) for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) == 2]
        assert len(weights) == 14
        most[saturates] = max(int(np.abs(array).max()) for array in weights)
    assert most == {False: 127, True: 64} or most == {False: 127, True: 63}


def test_named_layers_stay_in_float(graph: Path, tmp_path: Path) -> None:
    constant = {t.name for t in onnx.load(graph).graph.initializer}
    kept = [node.name for node in onnx.load(graph).graph.node if node.op_type == "MatMul" and node.input[1] in constant][:3]
    facts = quant.get("int8-static").apply(graph, tmp_path / "model.onnx", Context(calibration=rows(4), keep_float=frozenset(kept)))
    assert (facts["quantised"], facts["left_float"]) == (11, 7)


@pytest.mark.parametrize("nothing", [None, rows(0)])
def test_without_rows_it_refuses(graph: Path, tmp_path: Path, nothing: Any) -> None:
    with pytest.raises(StageError, match="there are none") as caught:
        quant.get("int8-static").apply(graph, tmp_path / "model.onnx", Context(calibration=nothing))
    assert caught.value.mend and "dynamic" in caught.value.mend
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_memory_does_not_grow_with_the_rows(graph: Path, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row leaves about 2 MB of activations here: kept, 200 rows would be 400 MB."""
    monkeypatch.setattr(calibration, "ROWS", 1000)
    here = psutil.Process()
    ids = np.random.default_rng(0).integers(5, 100, (40, 60))
    seen: list[int] = []

    def given(count: int) -> Iterator[dict[str, np.ndarray]]:
        for _ in range(count):
            seen.append(here.memory_info().rss)
            yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}

    def grown(count: int) -> int:
        quant.get(scheme).apply(graph, tmp_path / "model.onnx", Context(calibration=lambda: given(count)))
        rows = seen[-count:]
        return max(rows) - rows[4]  # the first ones fill the arenas

    assert grown(120) < 60e6


def test_rows_are_asked_for_one_at_a_time() -> None:
    given = calibration.Rows(rows(3))
    assert len(given) == 3
    for _ in range(3):
        given.set_range(0, 1)
        assert given.get_next() is not None
        assert given.get_next() is None
