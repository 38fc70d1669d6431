"""Ways of writing the same graph with fewer bits: one row a scheme.

`apply(graph, out, saturates=..., **options) -> facts` writes the quantised copy of `graph` to `out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgetune.table import pick, resolve


@dataclass(frozen=True)
class Scheme:
    name: str
    title: str
    families: tuple[Literal["encoder", "decoder"], ...]
    suffix: str  # of the file, as transformers.js names dtypes
    function: str
    tolerance: float  # of golden outputs on another CPU, relative to the largest
    onnxruntime_min: str
    row_by_row: bool = False  # activations share one scale, so rows of a batch disturb each other
    options: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, graph: Path, out: Path, *, saturates: bool) -> dict[str, Any]:
        facts: dict[str, Any] = resolve(self.function)(graph, out, saturates=saturates, **self.options)
        return facts


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("fp32", "32-bit float, as trained", ("encoder", "decoder"), "", "edgetune.quant.float:fp32", 1e-3, "1.17"),
        Scheme(
            "int8-dynamic",
            "8-bit weights, activations quantised at run time, one scale a tensor",
            ("encoder",),
            "_quantized",
            "edgetune.quant.dynamic:int8",
            0.05,
            "1.17",
            True,
            {"per_channel": False},
        ),
        Scheme(
            "int8-dynamic-per-channel",
            "8-bit weights with one scale a column, activations quantised at run time",
            ("encoder",),
            "_quantized",
            "edgetune.quant.dynamic:int8",
            0.05,
            "1.17",
            True,
            {"per_channel": True},
        ),
        Scheme(
            "int4-block32",
            "4-bit weights and embedding in blocks of 32",
            ("decoder",),
            "_q4",
            "edgetune.quant.weight_only:block",
            0.1,
            "1.23",
            options={"bits": 4},
        ),
        Scheme(
            "int4-int8-mixed",
            "4-bit weights, 8-bit where it costs most",
            ("decoder",),
            "_q4",
            "edgetune.quant.weight_only:mixed",
            0.1,
            "1.23",
        ),
        Scheme(
            "int8-weight",
            "8-bit weights and embedding in blocks of 32",
            ("decoder",),
            "_quantized",
            "edgetune.quant.weight_only:block",
            0.1,
            "1.23",
            options={"bits": 8},
        ),
    )
}


def get(name: str) -> Scheme:
    return pick(SCHEMES, name, "scheme")
