"""torch -> ONNX: how each family is traced, the exporters that do it, and the proof that nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.tasks.rows import BATCH, SEQUENCE

if TYPE_CHECKING:
    import torch

PAST, TOTAL = "past_sequence_length", "total_sequence_length"  # symbolic dimensions, as BATCH and SEQUENCE
DECODER = "decoder.onnx"  # beside model.onnx, which then is the encoder


__all__ = ["BATCH", "DECODER", "PAST", "SEQUENCE", "TOTAL", "Plan", "Shape", "files"]


def files(graph: Path) -> tuple[Path, ...]:
    """What makes up `graph`: the file itself and, of an encoder-decoder model, the decoder's beside it."""
    decoder = graph.with_name(DECODER)
    return (graph, decoder) if decoder.is_file() else (graph,)


@dataclass(frozen=True)
class Shape:
    """One point of the parity grid: `past` is the number of cached tokens, `padded` rows get shorter real lengths."""

    batch: int
    sequence: int
    past: int = 0
    padded: bool = False


@dataclass(frozen=True)
class Plan:
    """How one model is traced.

    `module` takes the tensors of `inputs` positionally and returns those of `outputs` as a tuple; `traced` is a form of it with fewer
    steps, which the graph is made from (None: `module` itself). `dynamic` gives inputs and
    outputs their symbolic dimensions (axis -> name). `feeds(shape, seed)` makes valid numpy inputs of any shape; `shapes` is the parity grid.
    """

    module: torch.nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]
    feeds: Callable[[Shape, int], dict[str, np.ndarray]]
    shapes: tuple[Shape, ...]
    trace_shape: Shape
    metadata: Mapping[str, Any]  # what a runtime must know: layers, kv_heads, head_dim for decoders
    traced: torch.nn.Module | None = None
