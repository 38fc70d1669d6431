"""Weight-only block quantisation: 4 or 8 bits a weight, one scale and zero point per block of a column.

Linear layers become `MatMulNBits` with accuracy level 4 (activations in 8 bits at run time), the token embedding becomes
`GatherBlockQuantized`; where the language model head is tied to the embedding, both read the same bytes, stored once. The scales of an
embedding that nothing else reads are float16: a tenth of its bytes less. See onnxruntime's docs/ContribOperators.md for the layouts. Round to nearest, asymmetric: no data is needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetune.errors import StageError
from edgetune.graph.passes import drop_unused
from edgetune.quant import Context

BLOCKS = (32, 16)  # tried in this order; the width of a matrix must be a multiple
ACCURACY_LEVEL = 4
DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class Reader:
    """A MatMul by a constant, or the Gather of the embedding. `rows`: each row of the initializer `weight` is one output (or token)."""

    node: onnx.NodeProto
    weight: str
    rows: bool


def block(graph: Path, out: Path, context: Context, *, bits: int = 4) -> dict[str, Any]:
    """Write the float `graph` to `out` with every linear layer and the embedding in `bits` (4 or 8).

    `context.saturates` changes nothing: MatMulNBits does not overflow on CPUs without VNNI (checked under qemu, Haswell).
    Returns how many weights have how many bits, which stayed in float and why, and the size of `out` in bytes.
    Raises StageError when nothing could be quantised.
    """
    return _quantize(graph, out, context, lambda model, readers: {reader.weight for reader in readers} if bits == 8 else set())


def mixed(graph: Path, out: Path, context: Context) -> dict[str, Any]:
    """As `block` in 4 bits, but with 8 where 4 cost most: see `_sensitive`."""
    return _quantize(graph, out, context, _sensitive)


def _quantize(graph: Path, out: Path, context: Context, eight: Callable[[onnx.GraphProto, list[Reader]], set[str]]) -> dict[str, Any]:
    """`eight` names the weights that get 8 bits; all others get 4."""
    model = onnx.load(graph)
    _split_gemms(model.graph)
    readers = [reader for reader in _readers(model.graph, _matrices(model.graph)) if reader.node.name not in context.keep_float]
    bits, kept = _swap(model, readers, eight(model.graph, readers))
    onnx.save(model, out)
    return {"weights": bits, "kept_float": kept, "bytes": out.stat().st_size}


def embed(model: onnx.ModelProto, bits: int) -> None:
    """Put the embedding of `model` in blocks of `bits`, in place. Raises StageError when there is none that fits."""
    readers = [reader for reader in _readers(model.graph, _matrices(model.graph)) if reader.node.op_type == "Gather"]
    _swap(model, readers, {reader.weight for reader in readers} if bits == 8 else set())


def _matrices(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT}


def _swap(model: onnx.ModelProto, readers: list[Reader], fine: set[str]) -> tuple[dict[str, int], dict[str, str]]:
    """Put what `readers` read in blocks, in place: the weights in `fine` in 8 bits, all others in 4.

    Returns how many weights have how many bits, and which stayed in float and why. Raises StageError when all did.
    """
    tensors = _matrices(model.graph)
    bits: Counter[str] = Counter()
    kept: dict[str, str] = {}
    swapped: dict[str, list[onnx.NodeProto]] = {}  # output of a node -> the nodes that take its place
    for weight, group in _grouped(readers).items():
        table = numpy_helper.to_array(tensors[weight])
        table = table if group[0].rows else table.T  # [N, K]: quantised along K
        size = next((size for size in BLOCKS if table.shape[1] % size == 0), None)
        if size is None or len({reader.rows for reader in group}) > 1:
            kept[weight] = "read both as it is and transposed" if size else f"width {table.shape[1]} is not a multiple of {BLOCKS[-1]}"
            continue
        width = 8 if weight in fine else 4
        bits[f"int{width}"] += 1
        packed, scales, zeros = _pack(table, width, size)
        half = all(reader.node.op_type == "Gather" for reader in group) and np.allclose(
            scales.astype(np.float16), scales, rtol=1e-3, atol=0
        )
        scales = scales.astype(np.float16) if half else scales
        parts = {"q": packed, "scales": scales, "zeros": zeros}
        model.graph.initializer.extend(numpy_helper.from_array(part, f"{weight}_{name}") for name, part in parts.items())
        for reader in group:
            lookup = reader.node.op_type == "Gather"
            swapped[reader.node.output[0]] = (
                _lookup(reader, table.shape, width, size, half) if lookup else _matmul(reader, table.shape, width, size)
            )
    if not swapped:
        raise StageError("no weight could be quantised in blocks", details=[f"{name}: {why}" for name, why in kept.items()])
    _replace(model.graph, [new for node in model.graph.node for new in swapped.get(node.output[0], [node])])
    drop_unused(model.graph)
    if not any(entry.domain == DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return dict(bits), kept


def _readers(graph: onnx.GraphProto, tensors: Mapping[str, onnx.TensorProto]) -> list[Reader]:
    """Every MatMul by a constant matrix, directly or through a Transpose, and the lookup in the table with the most rows: the embedding."""
    turned = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in tensors}
    products = [(node, turned.get(node.input[1], node.input[1])) for node in graph.node if node.op_type == "MatMul"]
    lookups = [node for node in graph.node if node.op_type == "Gather" and node.input[0] in tensors and _axis(node) == 0]
    widest = sorted(lookups, key=lambda node: tensors[node.input[0]].dims[0])[-1:]
    return [
        *(Reader(node, weight, rows=weight != node.input[1]) for node, weight in products if weight in tensors),
        *(Reader(node, node.input[0], rows=True) for node in widest),
    ]


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _grouped(readers: list[Reader]) -> dict[str, list[Reader]]:
    groups: dict[str, list[Reader]] = {}
    for reader in readers:
        groups.setdefault(reader.weight, []).append(reader)
    return groups


def _sensitive(graph: onnx.GraphProto, readers: list[Reader]) -> set[str]:
    """The weights that 4 bits hurt most: head and embedding, the value projections (found by walking back from the cache), and
    matrices that narrow, such as the last of a feed-forward block. llama.cpp's Q4_K_M spends its extra bits on the same places."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    made = {name: node for node in graph.node for name in node.output}
    linear = {reader.node.output[0]: reader.weight for reader in readers if reader.node.op_type == "MatMul"}
    chosen = {reader.weight for reader in readers if reader.node.op_type == "Gather"}
    chosen |= {reader.weight for reader in readers if not reader.rows and shapes[reader.weight][0] > shapes[reader.weight][1]}
    for output in graph.output:
        if output.name != "logits" and not output.name.endswith(".value"):
            continue
        ahead = [output.name]
        while ahead:
            name = ahead.pop()
            if name in linear:
                chosen.add(linear[name])
            elif name in made and made[name].op_type != "Shape":
                ahead.extend(made[name].input)
    return chosen


def _split_gemms(graph: onnx.GraphProto) -> None:
    """Gemm(x, W, b) -> Add(MatMul(x, W), b), with W through a Transpose where Gemm turns it: GPT-2's layers, and the heads of encoders."""
    nodes = []
    for node in graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type != "Gemm" or given.get("alpha", 1) != 1 or given.get("beta", 1) != 1 or given.get("transA"):
            nodes.append(node)
            continue
        weight = node.input[1]
        if given.get("transB"):
            weight = f"{node.output[0]}_turned"
            nodes.append(helper.make_node("Transpose", [node.input[1]], [weight], name=f"{node.name}_turn", perm=[1, 0]))
        biased = len(node.input) == 3
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
    _replace(graph, nodes)


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)


def _pack(table: np.ndarray, bits: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[N, K] float32 -> uint8 [N, K / size, size * bits / 8], scales float32 [N, K / size], zero points uint8 [N, packed]."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, DefaultWeightOnlyQuantizer

    config = DefaultWeightOnlyQuantConfig(block_size=size, is_symmetric=False, bits=bits)
    data, scales, zeros = DefaultWeightOnlyQuantizer(config).qbits_block_quant(np.ascontiguousarray(table.T))
    return data, scales, zeros


def _matmul(reader: Reader, shape: tuple[int, ...], bits: int, size: int) -> list[onnx.NodeProto]:
    inputs = [reader.node.input[0], *(f"{reader.weight}{part}" for part in ("_q", "_scales", "_zeros"))]
    sizes: dict[str, Any] = {"N": shape[0], "K": shape[1], "bits": bits, "block_size": size, "accuracy_level": ACCURACY_LEVEL}
    return [helper.make_node("MatMulNBits", inputs, list(reader.node.output), name=reader.node.name, domain=DOMAIN, **sizes)]


def _lookup(reader: Reader, shape: tuple[int, ...], bits: int, size: int, half: bool) -> list[onnx.NodeProto]:
    """The rows asked for, from the packed table seen as [N, K * bits / 8]: the same bytes that a tied head multiplies by. `half`: the scales
    are float16, and so is what comes out of the lookup."""
    table, rows, [found] = reader.weight, f"{reader.weight}_rows", reader.node.output
    flat = numpy_helper.from_array(np.array([shape[0], -1]), f"{rows}_shape")
    inputs = [rows, reader.node.input[1], f"{table}_scales", f"{table}_zeros"]
    sizes: dict[str, Any] = {"bits": bits, "block_size": size, "gather_axis": 0, "quantize_axis": 1}
    looked = f"{found}_half" if half else found
    nodes = [
        helper.make_node("Constant", [], [flat.name], value=flat),
        helper.make_node("Reshape", [f"{table}_q", flat.name], [rows], name=f"{reader.node.name}_rows"),
        helper.make_node("GatherBlockQuantized", inputs, [looked], name=reader.node.name, domain=DOMAIN, **sizes),
    ]
    return (
        [*nodes, helper.make_node("Cast", [looked], [found], name=f"{reader.node.name}_float", to=onnx.TensorProto.FLOAT)]
        if half
        else nodes
    )
