"""Static int8 (QDQ): weights and activations quantised ahead, the ranges of activations measured on the user's own rows.

Linear layers and the embedding only: what layers compute comes out in float; attention scores, softmax and layer norms stay as they are.
See onnxruntime's quantization guide, "Static Quantization".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

from edgetune.errors import StageError
from edgetune.quant import Context
from edgetune.quant.calibration import Rows, quiet

PRODUCTS = ("MatMul", "Gemm")
OPERATORS = (*PRODUCTS, "Gather")


def int8(graph: Path, out: Path, context: Context, *, method: str) -> dict[str, Any]:
    """Write `graph` with u8 activations and s8 weights (one scale a column) to `out`; `method` names onnxruntime's calibrator.

    Raises StageError when there are no rows to calibrate on, or nothing was quantised.
    """
    rows = Rows(context.calibration)
    model = onnx.load(graph)
    del model.graph.value_info[:]
    constant = {tensor.name for tensor in model.graph.initializer}
    inner = {node.name for node in model.graph.node if node.op_type in PRODUCTS and node.input[1] not in constant}
    with quiet():
        quantize_static(
            model,
            out,
            rows,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=sorted(inner | context.keep_float),
            per_channel=True,
            reduce_range=context.saturates,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            extra_options={
                "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
                "CalibStridedMinMax": 1,  # of every method: `collect_data` after each row
            },
        )
    written = onnx.load(out, load_external_data=False)
    made = {output: node.op_type for node in written.graph.node for output in node.output}
    products = [node for node in written.graph.node if node.op_type in PRODUCTS]
    quantised = sum(all(made.get(name) == "DequantizeLinear" for name in node.input[:2]) for node in products)
    if not quantised:
        raise StageError("static int8 found no MatMul or Gemm with a constant weight")
    return {
        "quantised": quantised,
        "left_float": len(products) - quantised,
        "weight_bits": 7 if context.saturates else 8,
        "calibration": {"method": method, "rows": len(rows)},
    }
