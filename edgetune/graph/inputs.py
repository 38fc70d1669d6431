"""Inputs as a target takes them: the integer type, and fixed shapes where the accelerator has no others."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgetune.errors import StageError
from edgetune.graph import BATCH, SEQUENCE, TOTAL


def convert(graph: Path, out: Path, *, ids: Literal["int64", "int32"] = "int64", sequence: int | None = None) -> dict[str, Any]:
    """Write `graph` to `out` with inputs of the integer type `ids` and, when `sequence` is given, of the shape [1, sequence].

    Fixed shapes make everything that is computed from them constant, and it is folded away. Returns the casts that were needed and the
    nodes before and after. Raises StageError when a dimension stays symbolic.
    """
    model = onnx.load(graph)
    before = len(model.graph.node)
    casts = _narrow(model.graph) if ids == "int32" else []
    if sequence is not None:
        model = _fixed(model, {BATCH: 1, SEQUENCE: sequence, TOTAL: sequence})
    onnx.save(model, out)
    return {"ids": ids, "sequence": sequence, "casts": casts, "nodes": {"before": before, "after": len(model.graph.node)}}


def _narrow(graph: onnx.GraphProto) -> list[str]:
    """int64 inputs become int32. Lookups and casts read them as they are; every other reader gets them through one Cast to int64."""
    cast = []
    for item in graph.input:
        if item.type.tensor_type.elem_type != TensorProto.INT64:
            continue
        item.type.tensor_type.elem_type = TensorProto.INT32
        wide = f"{item.name}_int64"
        if sum([_rewire(node, item.name, wide) for node in graph.node]):
            graph.node.insert(0, helper.make_node("Cast", [item.name], [wide], name=wide, to=TensorProto.INT64))
            cast.append(item.name)
    return cast


def _rewire(node: onnx.NodeProto, name: str, wide: str) -> int:
    """Let `node`, and the graphs inside it, read `wide` where they cannot take `name` in 32 bits; how often that was."""
    changed = 0
    for i, read in enumerate(node.input):
        if read == name and not (node.op_type == "Cast" or (node.op_type == "Gather" and i == 1)):
            node.input[i] = wide
            changed += 1
    return changed + sum(_rewire(inner, name, wide) for graph in _inside(node) for inner in graph.node)


def _inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def _fixed(model: onnx.ModelProto, sizes: dict[str, int]) -> onnx.ModelProto:
    from onnxscript import optimizer

    for item in (*model.graph.input, *model.graph.output):
        for dim in item.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    left = {dim.dim_param for item in model.graph.input for dim in item.type.tensor_type.shape.dim if dim.dim_param}
    if left:
        raise StageError(f"a graph with {', '.join(sorted(left))} cannot have fixed shapes")
    opsets, ir = {entry.domain for entry in model.opset_import}, model.ir_version
    level = logging.getLogger("onnxscript").level
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    try:
        folded = optimizer.optimize(model)
    finally:
        logging.getLogger("onnxscript").setLevel(level)
    assert isinstance(folded, onnx.ModelProto)
    _fold_lookups(folded)
    folded.ir_version = ir
    unused = [entry for entry in folded.opset_import if entry.domain not in opsets]
    for entry in unused:
        folded.opset_import.remove(entry)
    del folded.graph.value_info[:]
    return folded


def _fold_lookups(model: onnx.ModelProto) -> None:
    """What the optimizer leaves: a GatherElements of constants becomes one, and a GatherND that takes every element in order a Reshape.

    The first looks up the type of each token (0), the second the mask of each position; accelerators take neither.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {item.name: [dim.dim_value for dim in item.type.tensor_type.shape.dim] for item in (*inferred.value_info, *inferred.input)}
    nodes = []
    for node in graph.node:
        value = _looked_up(node, constants)
        shape = _in_order(node, constants, shapes)
        if value is not None:
            constants[node.output[0]] = value
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        elif shape is not None:
            name = f"{node.output[0]}_shape"
            graph.initializer.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), name))
            nodes.append(helper.make_node("Reshape", [node.input[0], name], list(node.output), name=node.name))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
    used |= {name for node in graph.node for inner in _inside(node) for deep in inner.node for name in deep.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _looked_up(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    if node.op_type != "GatherElements" or not all(name in constants for name in node.input):
        return None
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0) % constants[node.input[0]].ndim
    return np.take_along_axis(constants[node.input[0]], constants[node.input[1]], axis) if _fits(node, constants, axis) else None


def _fits(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], axis: int) -> bool:
    """numpy broadcasts the axes that are not looked up in; ONNX cuts them off. Equal where they are the same."""
    data, index = (list(constants[name].shape) for name in node.input)
    return len(data) == len(index) and data[:axis] == index[:axis] and data[axis + 1 :] == index[axis + 1 :]


def _in_order(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]]) -> list[int] | None:
    """The shape of what a GatherND takes, when it takes all elements of a tensor of known shape, each once and in order."""
    index, shape = constants.get(node.input[1]) if node.op_type == "GatherND" else None, shapes.get(node.input[0])
    if index is None or not shape or not all(shape) or index.shape[-1] != len(shape) or any(a.i for a in node.attribute):
        return None
    every = np.stack(np.unravel_index(np.arange(math.prod(shape)), shape), axis=-1)
    same = index.size == every.size and (index.reshape(-1, len(shape)) == every).all()
    return list(index.shape[:-1]) if same else None
