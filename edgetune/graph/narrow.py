"""Compute only what the answer reads: where a head reads the first token, the last layer needs no other token's query or feed-forward.

The answer's `Gather(x, 0, axis=1)` is moved up through everything that treats positions one by one, until it meets a tensor that is
needed whole (keys and values of the attention). Exact: the same numbers are computed, fewer of them. Power-BERT (arXiv:2001.08950)
drops tokens layer by layer and loses accuracy; this drops only what nobody reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

ONE_BY_ONE = {"Cast", "Erf", "Gelu", "Identity", "Relu", "Sigmoid", "Sqrt", "Tanh"}
TOGETHER = {"Add", "Div", "Mul", "Pow", "Sub", "Where"}

Shapes = Mapping[str, tuple[tuple[int, ...], ...]]  # tensor -> its shape in each of the runs


@dataclass
class _Demand:
    """Which tensors are read whole, and which only at position 0 of an axis."""

    whole: set[str] = field(default_factory=set)
    first: dict[str, int] = field(default_factory=dict)  # tensor -> axis


def narrow(model: onnx.ModelProto, shapes: Shapes) -> int:
    """Rewrite `model` in place; returns how many nodes now work on one position instead of all.

    `shapes`: what every tensor measured in at least two runs of different batch and sequence length.
    """
    made = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = [node for node in model.graph.node if _reads_first(node, shapes, constants) and node.input[0] in made]
    if not readers:
        return 0
    demand = _demands(model.graph, readers, shapes)
    nodes: list[onnx.NodeProto] = []
    narrowed = 0
    for node in model.graph.node:
        if node in readers:
            nodes += _squeeze(node)
            continue
        output = node.output[0] if len(node.output) == 1 else ""
        if output in demand.first and output not in demand.whole:
            nodes += _narrowed(node, demand, shapes)
            narrowed += 1
            continue
        nodes.append(node)
        if output in demand.first:
            nodes += _slice(output, demand.first[output])
    for name, axis in demand.first.items():
        if name not in made:  # an input or a weight
            nodes[:0] = _slice(name, axis)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return narrowed


def _reads_first(node: onnx.NodeProto, shapes: Shapes, constants: Mapping[str, onnx.TensorProto]) -> bool:
    if node.op_type != "Gather" or node.input[0] not in shapes or node.input[1] not in constants:
        return False
    index = numpy_helper.to_array(constants[node.input[1]])
    return index.shape == () and int(index) == 0 and _attribute(node, "axis", 0) == 1 and len(shapes[node.input[0]][0]) == 3


def _demands(graph: onnx.GraphProto, readers: list[onnx.NodeProto], shapes: Shapes) -> _Demand:
    """Walk against the flow: all readers of a tensor are seen before the node that makes it."""
    demand = _Demand(whole={output.name for output in graph.output})
    for node in reversed(graph.node):
        if node in readers:
            demand.first[node.input[0]] = 1
            continue
        axes = [demand.first.get(name) for name in node.output]
        wanted = None
        if not demand.whole & set(node.output) and len(axes) == 1 and axes[0] is not None:
            wanted = _wanted(node, axes[0], shapes)
        if wanted is None or any(demand.first.get(node.input[i], axis) != axis for i, axis in wanted.items()):
            if demand.whole & set(node.output) or any(axis is not None for axis in axes):
                demand.whole |= {*node.output, *node.input}
            continue
        for i, name in enumerate(node.input):
            if i in wanted:
                demand.first[name] = wanted[i]
            else:
                demand.whole.add(name)
    return demand


def _wanted(node: onnx.NodeProto, axis: int, shapes: Shapes) -> dict[int, int] | None:
    """Inputs that need only their first position, with the axis, when the output is read only at position 0 of `axis`.

    None when the node mixes positions, or is of a kind that is not known.
    """
    out = shapes[node.output[0]]
    rank = len(out[0])
    kind = node.op_type
    if kind in ONE_BY_ONE:
        return {0: axis}
    if kind in ("Softmax", "LayerNormalization"):
        over = _attribute(node, "axis", -1) % rank
        return {0: axis} if axis < over else None
    if kind in TOGETHER:
        aligned = {i: axis - rank + len(shapes[name][0]) for i, name in enumerate(node.input)}
        return {i: at for i, at in aligned.items() if at >= 0 and any(shape[at] > 1 for shape in shapes[node.input[i]])}
    if kind == "MatMul" and axis == rank - 2 and len(shapes[node.input[0]][0]) == rank:
        return {0: axis}
    if kind == "Transpose":
        return {0: list(next(a.ints for a in node.attribute if a.name == "perm"))[axis]}
    if kind == "Reshape":
        before = shapes[node.input[0]]
        same = all(a[: axis + 1] == b[: axis + 1] for a, b in zip(before, out, strict=True))
        return {0: axis} if same else None
    return None


def _narrowed(node: onnx.NodeProto, demand: _Demand, shapes: Shapes) -> list[onnx.NodeProto]:
    """`node` on the first position only; its output keeps the axis, with length 1."""
    axis = demand.first[node.output[0]]
    wanted = _wanted(node, axis, shapes)
    assert wanted is not None
    new = onnx.NodeProto()
    new.CopyFrom(node)
    new.output[0] = _name(node.output[0])
    for i in wanted:
        new.input[i] = _name(node.input[i])
    if node.op_type != "Reshape":
        return [new]
    size = list(shapes[node.output[0]][0])
    varies = [len({shape[i] for shape in shapes[node.output[0]]}) > 1 for i in range(len(size))]
    target = [1 if i == axis else 0 if changes else n for i, (n, changes) in enumerate(zip(size, varies, strict=True))]
    del new.attribute[:]  # allowzero: a 0 copies the input's dimension
    new.input[1] = f"{new.output[0]}_shape"
    return [helper.make_node("Constant", [], [new.input[1]], value=numpy_helper.from_array(np.array(target, dtype=np.int64))), new]


def _slice(name: str, axis: int) -> list[onnx.NodeProto]:
    ends = {"start": [0], "end": [1], "axis": [axis]}
    constants = [
        helper.make_node("Constant", [], [f"{_name(name)}_{end}"], value=numpy_helper.from_array(np.array(value, dtype=np.int64)))
        for end, value in ends.items()
    ]
    return [*constants, helper.make_node("Slice", [name, *(f"{_name(name)}_{end}" for end in ends)], [_name(name)])]


def _squeeze(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    axes = f"{node.output[0]}_axes"
    return [
        helper.make_node("Constant", [], [axes], value=numpy_helper.from_array(np.array([1], dtype=np.int64))),
        helper.make_node("Squeeze", [_name(node.input[0]), axes], [node.output[0]], name=node.name),
    ]


def _name(tensor: str) -> str:
    return f"{tensor}_first"


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == name), default)


def observe(model: onnx.ModelProto, runs: list[dict[str, Any]]) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The shape of every tensor of `model` in each of `runs` (feeds of different batch and sequence length)."""
    import onnxruntime

    every = onnx.ModelProto()
    every.CopyFrom(model)
    known = {output.name for output in every.graph.output}
    every.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for node in every.graph.node for name in node.output if name and name not in known
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(every.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = [
        {name: tuple(value.shape) for name, value in {**feeds, **dict(zip(names, session.run(names, feeds), strict=True))}.items()}
        for feeds in runs
    ]
    fixed = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {name: tuple(run[name] for run in found) for name in names + list(runs[0])} | {
        name: (dims,) * len(runs) for name, dims in fixed.items()
    }
