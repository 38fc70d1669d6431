"""Weight-only block quantisation for decoders: 4 or 8 bits a weight, one scale and zero point per block of a column.

Linear layers become `MatMulNBits` with accuracy level 4 (activations in 8 bits at run time), the token embedding becomes
`GatherBlockQuantized`; where the language model head is tied to the embedding, both read the same bytes, stored once. See onnxruntime's
docs/ContribOperators.md for the layouts. Round to nearest, asymmetric: no data is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetune.errors import StageError

BLOCKS = (32, 16)  # tried in this order; the width of a matrix must be a multiple
ACCURACY_LEVEL = 4
DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class Linear:
    """A MatMul by a constant. `weight` names the initializer, [K, N], or [N, K] when `transposed` (it is read through a Transpose)."""

    node: onnx.NodeProto
    weight: str
    transposed: bool
    k: int
    n: int


Bits = Callable[[list[Linear], str | None], dict[str, int]]


def block(graph: Path, out: Path, *, saturates: bool = False, bits: int = 4) -> dict[str, Any]:
    """Write `graph` to `out` with every linear layer and the embedding in `bits` (4 or 8).

    Returns which weights were quantised and which were kept in float and why. Raises StageError when nothing was quantised.
    """
    return _quantize(graph, out, lambda linears, table: dict.fromkeys([*(x.weight for x in linears), *([table] if table else [])], bits))


def _quantize(graph: Path, out: Path, choose: Bits, pack: Any = None) -> dict[str, Any]:
    model = onnx.load(graph)
    _split_gemms(model.graph)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    linears, gather = _linears(model.graph, weights), _embedding(model.graph, weights)
    table = gather.input[0] if gather else None
    bits = choose(linears, table)
    kept: dict[str, str] = {}
    packed: dict[str, int] = {}  # weight -> its block size
    swapped: dict[str, list[onnx.NodeProto]] = {}  # output of a node -> the nodes that take its place
    for linear in linears:
        size = next((size for size in BLOCKS if linear.k % size == 0), None)
        if size is None:
            kept[linear.weight] = f"its width {linear.k} is not a multiple of {BLOCKS[-1]}"
            continue
        if linear.weight not in packed:
            packed[linear.weight] = size
            array = numpy_helper.to_array(weights[linear.weight])
            model.graph.initializer.extend(_pack(linear.weight, array.T if linear.transposed else array, bits[linear.weight], size))
        swapped[linear.node.output[0]] = [_matmul(linear, bits[linear.weight], size)]
    if gather is not None and table is not None:
        array = numpy_helper.to_array(weights[table])
        size = next((size for size in BLOCKS if array.shape[1] % size == 0), None)
        tied = [linear for linear in linears if linear.weight == table]
        if size is None or any(not linear.transposed for linear in tied):
            kept[table] = f"its width {array.shape[1]} is not a multiple of {BLOCKS[-1]}"
        else:
            if table not in packed:
                packed[table] = size
                model.graph.initializer.extend(_pack(table, array.T, bits[table], size))
            swapped[gather.output[0]] = _lookup(gather, array.shape, bits[table], size)
            model.graph.initializer.append(numpy_helper.from_array(np.array([array.shape[0], -1]), f"{table}_rows"))
    if not packed:
        raise StageError("no weight could be quantised in blocks", details=[f"{name}: {why}" for name, why in kept.items()])
    nodes = [new for node in model.graph.node for new in swapped.get(node.output[0], [node])]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _drop_unused(model.graph)
    if not any(entry.domain == DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, out)
    counts = {f"int{width}": sum(1 for name in packed if bits[name] == width) for width in (4, 8)}
    return {"weights": counts, "kept_float": kept, "embedding": table in packed, "bytes": out.stat().st_size}


def _linears(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> list[Linear]:
    """Every MatMul whose second operand is a constant matrix, in the order of the graph."""
    turned = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in weights and len(weights[node.input[0]].dims) == 2
    }
    found = []
    for node in graph.node:
        if node.op_type == "MatMul":
            name = turned.get(node.input[1], node.input[1])
            if name in weights and len(weights[name].dims) == 2:
                rows, columns = weights[name].dims
                transposed = name != node.input[1]
                found.append(Linear(node, name, transposed, *((columns, rows) if transposed else (rows, columns))))
    return found


def _embedding(graph: onnx.GraphProto, weights: dict[str, onnx.TensorProto]) -> onnx.NodeProto | None:
    """The Gather of whole rows from the table with the most rows: the token embedding."""
    found = [
        node
        for node in graph.node
        if node.op_type == "Gather"
        and node.input[0] in weights
        and len(weights[node.input[0]].dims) == 2
        and weights[node.input[0]].data_type == onnx.TensorProto.FLOAT
        and next((a.i for a in node.attribute if a.name == "axis"), 0) == 0
    ]
    return max(found, key=lambda node: weights[node.input[0]].dims[0], default=None)


def _split_gemms(graph: onnx.GraphProto) -> None:
    """Gemm(x, W, b) with plain weights -> Add(MatMul(x, W), b), which is how GPT-2's layers come out of the exporter."""
    nodes = []
    for node in graph.node:
        plain = all(a.f == 1 if a.name in ("alpha", "beta") else a.i == 0 for a in node.attribute)
        if node.op_type != "Gemm" or not plain:
            nodes.append(node)
            continue
        biased = len(node.input) == 3
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", node.input[:2], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
    del graph.node[:]
    graph.node.extend(nodes)


def _pack(name: str, matrix: np.ndarray, bits: int, size: int) -> list[onnx.TensorProto]:
    """[K, N] float32 -> `_q` uint8 [N, K / size, size * bits / 8], `_scales` float32 [N, K / size], `_zeros` uint8 [N, packed]."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=size, is_symmetric=False, bits=bits)
    data, scales, zeros = DefaultWeightOnlyQuantizer(config).qbits_block_quant(np.ascontiguousarray(matrix, dtype=np.float32))
    return [
        numpy_helper.from_array(data, f"{name}_q"),
        numpy_helper.from_array(scales, f"{name}_scales"),
        numpy_helper.from_array(zeros, f"{name}_zeros"),
    ]


def _matmul(linear: Linear, bits: int, size: int) -> onnx.NodeProto:
    inputs = [linear.node.input[0], *(f"{linear.weight}{part}" for part in ("_q", "_scales", "_zeros"))]
    return helper.make_node(
        "MatMulNBits",
        inputs,
        list(linear.node.output),
        name=linear.node.name,
        domain=DOMAIN,
        K=linear.k,
        N=linear.n,
        bits=bits,
        block_size=size,
        accuracy_level=ACCURACY_LEVEL,
    )


def _lookup(gather: onnx.NodeProto, shape: tuple[int, ...], bits: int, size: int) -> list[onnx.NodeProto]:
    """The rows asked for, from the packed table seen as [N, K * bits / 8]: the same bytes that a tied head multiplies by."""
    table, ids = gather.input
    return [
        helper.make_node("Reshape", [f"{table}_q", f"{table}_rows"], [f"{table}_q_rows"], name=f"{gather.name}_rows"),
        helper.make_node(
            "GatherBlockQuantized",
            [f"{table}_q_rows", ids, f"{table}_scales", f"{table}_zeros"],
            list(gather.output),
            name=gather.name,
            domain=DOMAIN,
            bits=bits,
            block_size=size,
            gather_axis=0,
            quantize_axis=1,
        ),
    ]


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Nodes and initializers that nothing reads any more, and shapes noted for tensors that are gone."""
    while True:
        used = {*_reads(graph), *(output.name for output in graph.output)}
        live = [node for node in graph.node if used & set(node.output)]
        if len(live) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(live)
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    del graph.value_info[:]


def _reads(graph: onnx.GraphProto) -> Iterator[str]:
    """Names that the nodes of `graph` and of the graphs inside them read."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _reads(attribute.g)
