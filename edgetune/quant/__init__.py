"""Ways of writing the same graph with fewer bits: one row a scheme.

`apply(graph, out, context)` writes the quantised copy of `graph` to `out` and returns what was done, as JSON values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.profile import FAMILIES, Family
from edgetune.table import pick, resolve

if TYPE_CHECKING:
    import numpy as np

Feeds = Mapping[str, "np.ndarray"]


@dataclass(frozen=True)
class Context:
    """What a scheme has to know beyond the graph.

    `saturates`: the CPU adds pairs of u8 x s8 products in 16 bits (x86 without VNNI). `calibration` gives the graph's inputs for
    rows of the user's own data, one row at a time, anew at each call. `float_ops` (types) and `keep_float` (names of nodes) stay in float.
    """

    saturates: bool = False
    calibration: Callable[[], Iterator[Feeds]] | None = None
    float_ops: tuple[str, ...] = ()
    keep_float: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Scheme:
    name: str
    title: str
    families: tuple[Family, ...]
    suffix: str  # of the file, as transformers.js names dtypes
    function: str
    tolerance: float  # of golden outputs on the architecture and provider that wrote them, relative to the largest
    onnxruntime_min: str
    row_by_row: bool = False  # activations share one scale, so rows of a batch disturb each other
    static: bool = False  # needs `Context.calibration`
    reads: tuple[str, ...] = ()  # the other parts of Context that change what is written
    options: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: float | None = None  # the tolerance on another architecture or provider; None: the same

    def apply(self, graph: Path, out: Path, context: Context | None = None) -> dict[str, Any]:
        """Raises StageError when nothing could be quantised, or when a static scheme gets no rows."""
        facts: dict[str, Any] = resolve(self.function)(graph, out, context or Context(), **self.options)
        return facts

    def key(self, context: Context) -> str:
        """A name for what `apply` writes with this context: the scheme's, and a digest of the parts of the context that it reads."""
        told: dict[str, Any] = {part: getattr(context, part) for part in self.reads}
        if self.static and context.calibration:
            told["rows"] = [{name: array.tolist() for name, array in row.items()} for row in context.calibration()]
        told = {part: sorted(value) if isinstance(value, frozenset) else value for part, value in told.items() if value}
        return f"{self.name}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]}" if told else self.name


DYNAMIC: dict[str, Any] = {
    "families": ("encoder", "seq2seq"),
    # Another CPU rounds its floats differently, and where an activation lies between two steps it takes the other one: of 126 texts MiniLM
    # answered 84 % to 1e-5 under Arm, and the worst was 0.11 off (WebAssembly: 0.11). Sums that saturate are 0.14 off in the median.
    "tolerance": 0.05,
    "elsewhere": 0.2,
    "row_by_row": True,
    "function": "edgetune.quant.dynamic:int8",
    "reads": ("saturates", "keep_float"),
}
STATIC: dict[str, Any] = {
    "families": ("encoder",),
    "suffix": "_quantized",
    "tolerance": 0.05,
    "onnxruntime_min": "1.17",
    "static": True,
    "reads": ("saturates", "keep_float"),
    "function": "edgetune.quant.static:int8",
}
BLOCKS: dict[str, Any] = {"tolerance": 0.1, "onnxruntime_min": "1.23", "reads": ("keep_float",)}

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("fp32", "32-bit float, as trained", FAMILIES, "", "edgetune.quant.float:fp32", 1e-3, "1.17"),
        Scheme(
            "fp16",
            "16-bit float, inputs and outputs 32-bit",
            FAMILIES,
            "_fp16",
            "edgetune.quant.float:fp16",
            0.02,
            "1.17",
            reads=("float_ops", "keep_float"),
        ),
        Scheme(
            "int8-dynamic",
            "8-bit weights, activations quantised at run time, one scale a tensor",
            suffix="_quantized",
            onnxruntime_min="1.17",
            options={"per_channel": False},
            **DYNAMIC,
        ),
        Scheme(
            "int8-dynamic-per-channel",
            "8-bit weights with one scale a column, activations quantised at run time",
            suffix="_quantized",
            onnxruntime_min="1.17",
            options={"per_channel": True},
            **DYNAMIC,
        ),
        Scheme(
            "uint8-dynamic-per-channel",
            "unsigned 8-bit weights with one scale a column: exact where sums of u8 x s8 saturate",
            suffix="_uint8",
            onnxruntime_min="1.17",
            options={"per_channel": True, "signed": False},
            **DYNAMIC,
        ),
        Scheme(
            "int8-dynamic-embedding4",
            "as int8-dynamic-per-channel, with the embedding in 4-bit blocks of 32",
            suffix="_quantized",
            onnxruntime_min="1.23",
            options={"per_channel": True, "embedding_bits": 4},
            **{**DYNAMIC, "families": ("encoder",)},  # a head that is tied to the embedding would stay in float
        ),
        Scheme(
            "int8-static",
            "8-bit weights and activations, ranges from your rows: their least and largest",
            options={"method": "MinMax"},
            **STATIC,
        ),
        Scheme("int8-static-entropy", "as int8-static, ranges that lose the least information", options={"method": "Entropy"}, **STATIC),
        Scheme(
            "int8-static-percentile", "as int8-static, ranges that hold 99.999 % of the values", options={"method": "Percentile"}, **STATIC
        ),
        Scheme(
            "u16u8-static",
            "16-bit activations and 8-bit weights in every operator, for NPUs; ranges from your rows",
            ("encoder",),
            "_quantized",
            "edgetune.quant.npu:u16u8",
            0.05,
            "1.23",
            static=True,
            reads=("float_ops", "keep_float"),
            elsewhere=0.15,  # the HTP's integers against a CPU's floats between the same steps: MiniLM, 32 texts, 0.064 at most
        ),
        Scheme(
            "int4-block32",
            "4-bit weights and embedding in blocks of 32",
            FAMILIES,
            "_q4",
            "edgetune.quant.weight_only:block",
            options={"bits": 4},
            **BLOCKS,
        ),
        Scheme(
            "int4-int8-mixed",
            "4-bit weights, 8-bit where it costs most",
            ("decoder",),
            "_q4",
            "edgetune.quant.weight_only:mixed",
            **BLOCKS,
        ),
        Scheme(
            "int8-weight",
            "8-bit weights and embedding in blocks of 32",
            FAMILIES,
            "_quantized",
            "edgetune.quant.weight_only:block",
            options={"bits": 8},
            **BLOCKS,
        ),
    )
}


def get(name: str) -> Scheme:
    return pick(SCHEMES, name, "scheme")
