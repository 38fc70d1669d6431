"""What each quantised layer costs, and the most expensive ones given back to float until the promise holds.

One group of layers at a time is quantised, all others stay float: its cost is the mean KL divergence of the answers from the float
model's, in nats. (Leaving one out of a quantised model measures the same with the errors of all others on top.)
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgetune import progress
from edgetune.errors import StageError
from edgetune.graph import session
from edgetune.quant import Context, Feeds, Scheme

MOST_GROUPS = 48  # that are measured: of a deeper model, several that follow each other are one
CALIBRATION = 16  # rows of a static scheme while measuring; what is written is calibrated on all


@dataclass(frozen=True)
class Cost:
    """Of quantising `nodes` alone: `kl` in nats a row; `bytes` of their weights in float32."""

    nodes: tuple[str, ...]
    kl: float
    bytes: int


def groups(graph: onnx.GraphProto) -> dict[tuple[str, ...], int]:
    """Names of linear layers and embeddings -> bytes of their weights; layers that read the same tensor are one group."""
    tables = {tensor.name: 4 * int(np.prod(tensor.dims)) for tensor in graph.initializer if len(tensor.dims) == 2}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.input[1] in tables:
            found.setdefault(node.input[0], []).append(node)
        elif node.op_type == "Gather" and node.input[0] in tables:
            found.setdefault(node.name, []).append(node)
    read = {"Gather": 0}
    return {
        tuple(node.name for node in nodes): sum(tables[node.input[read.get(node.op_type, 1)]] for node in nodes) for nodes in found.values()
    }


def costs(graph: Path, scheme: Scheme, context: Context, rows: Sequence[Feeds]) -> list[Cost]:
    """The cost of every group of `graph` under `scheme` on `rows` (feeds of one row each), the most expensive first."""
    parts = _together(groups(onnx.load(graph, load_external_data=False).graph))
    every = frozenset(itertools.chain.from_iterable(parts))
    calibration = context.calibration
    brief = replace(context, calibration=(lambda: itertools.islice(calibration(), CALIBRATION)) if calibration else None)
    expected = _log_softmax(graph, rows)
    found = []
    with tempfile.TemporaryDirectory() as folder, progress.bar("measuring what each layer costs", len(parts)) as bar:
        out = Path(folder) / "model.onnx"
        for nodes, size in parts.items():
            try:
                scheme.apply(graph, out, replace(brief, keep_float=every - set(nodes) | context.keep_float))
            except StageError:  # a scheme that leaves this group in float anyway
                bar.advance(1)
                continue
            found.append(Cost(nodes, divergence(expected, _log_softmax(out, rows)), size))
            bar.advance(1)
    return sorted(found, key=lambda cost: -cost.kl)


def _together(parts: dict[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    """At most MOST_GROUPS of them."""
    size = -(-len(parts) // MOST_GROUPS)
    every = list(parts.items())
    runs = [every[at : at + size] for at in range(0, len(every), max(1, size))]
    return {tuple(itertools.chain.from_iterable(nodes for nodes, _ in run)): sum(count for _, count in run) for run in runs}


def mend(
    found: Sequence[Cost], judge: Callable[[frozenset[str]], tuple[bool, dict[str, Any]]]
) -> tuple[frozenset[str] | None, dict[str, Any]]:
    """Give 1, 2, 4, ... of the most expensive groups back to float until `judge` accepts.

    `judge(nodes)` makes and scores the candidate whose `nodes` stay float -> (does it hold?, what to note about it: metric, size).
    Returns those nodes (None: no number of them helps) and the curve for the report: `layers` with the cost of each, and `curve`, a
    point for every try.
    """
    curve: list[dict[str, Any]] = []
    kept: frozenset[str] | None = None
    for count in _doubling(len(found)):
        nodes = frozenset(itertools.chain.from_iterable(cost.nodes for cost in found[:count]))
        held, noted = judge(nodes)
        curve.append({"given_back": count, "kl_left": sum(cost.kl for cost in found[count:]), **noted})
        if held:
            kept = nodes
            break
    layers = [{"layers": list(cost.nodes), "kl": cost.kl, "bytes": cost.bytes} for cost in found]
    return kept, {"layers": layers, "curve": curve, "given_back": sorted(kept) if kept else []}


def divergence(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Mean KL(expected || found) in nats, of the log-probabilities [..., classes] of each row."""
    return float(np.mean([(np.exp(a) * (a - b)).sum(-1).mean() for a, b in zip(expected, found, strict=True)]))


def _doubling(most: int) -> Iterator[int]:
    """1, 2, 4, ... below `most`: with all of them in float there is no scheme left."""
    return itertools.takewhile(lambda count: count < most, (2**power for power in itertools.count()))


def _log_softmax(graph: Path, rows: Sequence[Feeds]) -> list[np.ndarray]:
    """Of every output, row after row."""
    from scipy.special import log_softmax

    run = session.start(graph)
    return [np.asarray(log_softmax(output.astype(np.float64), axis=-1)) for row in rows for output in run.run(None, dict(row))]
