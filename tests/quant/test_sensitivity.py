"""The layer that hurts is found, and given back until the promise holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from edgetune import quant
from edgetune.quant import Context, sensitivity
from edgetune.quant.sensitivity import Cost

from .conftest import rows

SCHEME = quant.get("int8-dynamic")


@pytest.fixture(scope="module")
def hurt(graph: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(the float graph with one outlier in one layer, so that a scale for the whole matrix cannot say the rest; that layer's name)."""
    model = onnx.load(graph)
    node = next(n for n in model.graph.node if n.op_type == "MatMul" and "layer.1/intermediate" in n.name)
    tensor = next(t for t in model.graph.initializer if t.name == node.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values[:, 0] = 0
    values[0, 0] = 400.0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path = tmp_path_factory.mktemp("hurt") / "model.onnx"
    onnx.save(model, path)
    return path, node.name


def test_groups_are_all_layers_and_each_once(graph: Path) -> None:
    found = sensitivity.groups(onnx.load(graph).graph)
    names = [name for nodes in found for name in nodes]
    assert len(names) == len(set(names))
    assert sorted(len(nodes) for nodes in found)[-2:] == [3, 3], "the projections of each layer's attention"
    kinds = [node.op_type for node in onnx.load(graph).graph.node if node.name in names]
    assert kinds.count("MatMul") + kinds.count("Gemm") == 2 * 6 + 2
    assert kinds.count("Gather") >= 2


@pytest.fixture(scope="module")
def measured(hurt: tuple[Path, str]) -> list[Cost]:
    return sensitivity.costs(hurt[0], SCHEME, Context(), list(rows(12)()))


def test_the_layer_with_the_outlier_costs_most(hurt: tuple[Path, str], measured: list[Cost]) -> None:
    assert measured[0].nodes == (hurt[1],)
    assert measured[0].kl > 3 * measured[1].kl > 0
    assert [cost.kl for cost in measured] == sorted((cost.kl for cost in measured), reverse=True)
    assert measured[0].bytes == 4 * 32 * 64


def test_giving_it_back_mends(hurt: tuple[Path, str], measured: list[Cost], tmp_path: Path) -> None:
    given_rows = list(rows(12)())
    expected = sensitivity._log_softmax(hurt[0], given_rows)

    def judge(nodes: frozenset[str]) -> tuple[bool, dict[str, Any]]:
        SCHEME.apply(hurt[0], tmp_path / "model.onnx", Context(keep_float=nodes))
        kl = sensitivity.divergence(expected, sensitivity._log_softmax(tmp_path / "model.onnx", given_rows))
        return kl < 0.5 * whole, {"kl": kl, "size_bytes": (tmp_path / "model.onnx").stat().st_size}

    whole = np.inf
    _, noted = judge(frozenset())
    whole = noted["kl"]
    kept, curve = sensitivity.mend(measured, judge)
    assert kept == {hurt[1]}
    assert curve["given_back"] == [hurt[1]]
    assert curve["curve"][0]["kl"] < 0.5 * whole
    assert curve["curve"][0]["size_bytes"] > noted["size_bytes"], "it pays with bytes"
    assert len(curve["layers"]) == len(measured)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 50))
def test_gives_back_the_fewest_that_it_tries(kls: list[float], needed: int) -> None:
    found = [Cost((f"n{i}",), kl, 4) for i, kl in enumerate(sorted(kls, reverse=True))]
    tried: list[int] = []

    def judge(nodes: frozenset[str]) -> tuple[bool, dict[str, Any]]:
        assert nodes == {f"n{i}" for i in range(len(nodes))}, "the most expensive first"
        tried.append(len(nodes))
        return len(nodes) >= needed, {}

    kept, noted = sensitivity.mend(found, judge)
    assert tried == sorted(tried) and all(count < len(found) for count in tried)
    assert (kept is None) == (not tried or tried[-1] < needed)
    assert [point["given_back"] for point in noted["curve"]] == tried
    if kept is not None:
        assert len(kept) < max(2, 2 * needed)


@pytest.mark.parametrize("count", [1, sensitivity.MOST_GROUPS, sensitivity.MOST_GROUPS + 1, 121])
def test_of_a_deep_model_layers_that_follow_each_other_are_measured_together(count: int) -> None:
    parts = {(f"layer {i}", f"beside {i}"): i for i in range(count)}
    found = sensitivity._together(parts)
    assert len(found) <= sensitivity.MOST_GROUPS and (found == parts) is (count <= sensitivity.MOST_GROUPS)
    assert [name for nodes in found for name in nodes] == [name for nodes in parts for name in nodes]
    assert sum(found.values()) == sum(parts.values())
