"""The same graph in fewer, faster steps, for onnxruntime's CPU kernels: each pass is a row of PASSES, and stays only where it changes nothing.

`attention`  the dozen nodes of an eager attention block -> one `Attention` (three projections in one product), or `MultiHeadAttention` where
             the queries come from elsewhere. On short texts most of a small model's time goes to such steps, not to its matrices.
`residual`   Add before LayerNormalization -> Sum: onnxruntime would fuse the Add into SkipLayerNormalization, whose CPU kernel is not
             vectorised (1.31: 190 us for 128 x 384, against 45 us for the two apart).

See onnxruntime's docs/ContribOperators.md for the operators of domain com.microsoft.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgetune.graph import session
from edgetune.tasks import INPUTS

DOMAIN = "com.microsoft"
TOLERANCE = 1e-4  # relative to max(1, the largest value)
LENGTHS = (1, 2, 5, 17)


@dataclass(frozen=True)
class Linear:
    """Add(MatMul(source, weight), bias): the names, and the MatMul's."""

    source: str
    weight: str
    bias: str
    node: str


@dataclass(frozen=True)
class Block:
    """One eager attention: softmax(scale * query @ key + mask) @ value, heads put side by side again by `last`."""

    query: str
    key: str
    value: str
    heads: int
    scale: float
    last: onnx.NodeProto


class Reader:
    """Who makes a name, and the value of a constant."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.made = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Identity" and node.input[0] in self.constants:
                self.constants[node.output[0]] = self.constants[node.input[0]]

    def value(self, name: str) -> np.ndarray | None:
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def from_node(self, name: str, *kinds: str) -> onnx.NodeProto:
        """The node of one of `kinds` that makes `name`. Raises LookupError."""
        node = self.made[name]
        if node.op_type not in kinds:
            raise LookupError(name)
        return node

    def only_reader(self, name: str, kind: str) -> onnx.NodeProto:
        readers = self.readers[name]
        if len(readers) != 1 or readers[0].op_type != kind:
            raise LookupError(name)
        return readers[0]

    def linear(self, name: str) -> Linear:
        """Raises LookupError where `name` is not a product with a constant plus a constant, in either order."""
        add = self.from_node(name, "Add")
        bias = [one for one in add.input if one in self.constants]
        if len(bias) != 1:
            raise LookupError(name)
        product = self.from_node(next(one for one in add.input if one != bias[0]), "MatMul")
        if product.input[1] not in self.constants:
            raise LookupError(name)
        return Linear(product.input[0], product.input[1], bias[0], product.name)


def fuse(model: onnx.ModelProto, keep: Collection[str] = ()) -> tuple[onnx.ModelProto, dict[str, int]]:
    """(`model` after every pass that kept its answers, how many places each changed). Linear layers named in `keep` stay nodes of their own.

    Answers are compared on random ids, padded and not, in float; a pass that changes one is left out.
    """
    changed: dict[str, int] = {}
    feeds = list(_feeds(model))
    if not feeds:
        return model, changed
    expected = _answers(model, feeds)
    for name, change in PASSES.items():
        tried = onnx.ModelProto()
        tried.CopyFrom(model)
        count = change(tried, keep)
        if count and _same(expected, _answers(tried, feeds)):
            model, changed[name] = tried, count
    return model, changed


def attention(model: onnx.ModelProto, keep: Collection[str] = ()) -> int:
    graph = model.graph
    reader = Reader(graph)
    replaced: dict[str, onnx.NodeProto] = {}
    for block in _blocks(graph, reader):
        parts = [reader.linear(name) for name in (block.query, block.key, block.value)]
        if any(part.node in keep for part in parts):
            continue
        name = block.last.output[0]
        sizes: dict[str, Any] = {"num_heads": block.heads, "scale": block.scale}
        if len({part.source for part in parts}) == 1:
            for suffix, names in (("weight", [p.weight for p in parts]), ("bias", [p.bias for p in parts])):
                together = np.concatenate([numpy_helper.to_array(reader.constants[one]) for one in names], axis=-1)
                graph.initializer.append(numpy_helper.from_array(together, f"{name}_{suffix}"))
            inputs, kind = [parts[0].source, f"{name}_weight", f"{name}_bias", "real_tokens"], "Attention"
        else:
            inputs, kind = [block.query, block.key, block.value, "", "real_tokens"], "MultiHeadAttention"
        replaced[name] = helper.make_node(kind, inputs, [name], name=f"{name}_attention", domain=DOMAIN, **sizes)
    if replaced:
        cast = helper.make_node("Cast", ["attention_mask"], ["real_tokens"], name="real_tokens", to=onnx.TensorProto.INT32)
        nodes = [cast, *(replaced.get(node.output[0], node) for node in graph.node)]
        del graph.node[:]
        graph.node.extend(nodes)
        if not any(entry.domain == DOMAIN for entry in model.opset_import):
            model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        drop_unused(graph)
    return len(replaced)


def residual(model: onnx.ModelProto, keep: Collection[str] = ()) -> int:
    made = {name: node for node in model.graph.node for name in node.output}
    sums = [made.get(node.input[0]) for node in model.graph.node if node.op_type == "LayerNormalization"]
    adds = [node for node in sums if node is not None and node.op_type == "Add"]
    for node in adds:
        node.op_type = "Sum"
    return len(adds)


# In the order in which they are tried.
PASSES: dict[str, Callable[[onnx.ModelProto, Collection[str]], int]] = {"attention": attention, "residual": residual}


def _blocks(graph: onnx.GraphProto, reader: Reader) -> Iterator[Block]:
    for node in graph.node:
        if node.op_type == "Softmax":
            try:
                yield _block(node, reader)
            except LookupError:
                continue


def _block(softmax: onnx.NodeProto, reader: Reader) -> Block:
    """Raises LookupError where the nodes around `softmax` are not those of an eager attention."""
    scaled = reader.from_node(reader.from_node(softmax.input[0], "Add").input[0], "Mul", "Div")
    factor = reader.value(scaled.input[1])
    if factor is None or factor.size != 1:
        raise LookupError(scaled.name)
    scores = reader.from_node(scaled.input[0], "MatMul")
    mixed = reader.only_reader(softmax.output[0], "MatMul")
    last = reader.only_reader(reader.only_reader(mixed.output[0], "Transpose").output[0], "Reshape")
    query, key, value = (
        reader.from_node(reader.from_node(name, "Transpose").input[0], "Reshape") for name in (*scores.input, mixed.input[1])
    )
    width = reader.value(reader.linear(query.input[0]).bias)
    size = _last_dimension(query.input[1], reader)
    assert width is not None
    if not size or width.size % size:
        raise LookupError(query.name)
    scale = float(factor.item()) if scaled.op_type == "Mul" else 1 / float(factor.item())
    return Block(query.input[0], key.input[0], value.input[0], width.size // size, scale, last)


def _last_dimension(shape: str, reader: Reader) -> int:
    """Of a Reshape to `shape`: the size of a head. 0: not known ahead."""
    node = reader.made.get(shape)
    value = reader.value(node.input[-1] if node is not None and node.op_type == "Concat" else shape)
    return int(value.ravel()[-1]) if value is not None else 0


def untie(model: onnx.ModelProto) -> int:
    """Weights that are transposed before they are read become weights of their own, transposed, in place; how many."""
    graph, made = model.graph, 0
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Transpose" and node.input[0] in weights]:
        order = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), None)
        array = np.ascontiguousarray(numpy_helper.to_array(weights[node.input[0]]).transpose(order))
        graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        graph.node.remove(node)
        made += 1
    drop_unused(graph)
    return made


def drop_unused(graph: onnx.GraphProto) -> None:
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


def _feeds(model: onnx.ModelProto) -> Iterator[dict[str, np.ndarray]]:
    """Random ids and a mask with padding, of the shapes that the graph takes; nothing for a graph with other inputs."""
    inputs = {value.name: value.type.tensor_type for value in model.graph.input}
    tables = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    known = [tables[n.input[0]] for n in model.graph.node if n.op_type == "Gather" and n.input[1] == INPUTS[0] and n.input[0] in tables]
    if set(inputs) - set(INPUTS) or not known:
        return
    fixed = [dim.dim_value for dim in inputs[INPUTS[0]].shape.dim]
    chance = np.random.default_rng(0)
    for length in [fixed[1]] if fixed[1] else LENGTHS:
        for batch in [fixed[0]] if fixed[0] else (1, 3):
            ids = chance.integers(0, known[0], (batch, length))
            mask = np.arange(length)[None] < chance.integers(1, length + 1, (batch, 1))
            mask[0] = True
            given = dict(zip(INPUTS, (ids, mask, np.arange(length)[None] > length // 2 * mask), strict=False))
            yield {name: given[name].astype(helper.tensor_dtype_to_np_dtype(kind.elem_type)) for name, kind in inputs.items()}


def _answers(model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    """What every output says about real tokens."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        run = session.start(path)
        names = [output.name for output in run.get_outputs()]
        said = [(feed, name, array) for feed in feeds for name, array in zip(names, run.run(None, feed), strict=True)]
        return [array[feed["attention_mask"] > 0] if session.of_tokens(name, array) else array for feed, name, array in said]


def _same(expected: list[np.ndarray], found: list[np.ndarray]) -> bool:
    return all(
        float(np.abs(a - b).max(initial=0.0)) <= TOLERANCE * max(1.0, float(np.abs(a).max(initial=0.0)))
        for a, b in zip(expected, found, strict=True)
    )
