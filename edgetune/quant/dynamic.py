"""Dynamic int8: weights quantised ahead, activations at run time.

For encoders on CPUs with int8 dot products; see onnxruntime's quantization guide, "Dynamic Quantization". The embedding is
quantised too: it costs no time and is half of a small encoder's bytes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgetune.errors import StageError

OPERATORS = ("MatMul", "Gemm", "Gather")


def int8(graph: Path, out: Path, *, per_channel: bool, saturates: bool) -> dict[str, Any]:
    """Write `graph` with int8 MatMul, Gemm and Gather weights to `out`.

    `saturates`: the CPU adds pairs of u8 x s8 products in 16 bits, so weights get 7 bits. Raises StageError when nothing was quantised.
    """
    model = onnx.load(graph)
    del model.graph.value_info[:]
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        quantize_dynamic(
            model,
            out,
            op_types_to_quantize=list(OPERATORS),
            per_channel=per_channel,
            reduce_range=saturates,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
        )
    finally:
        logging.getLogger().setLevel(before)
    kinds = [node.op_type for node in onnx.load(out, load_external_data=False).graph.node]
    quantised = kinds.count("MatMulInteger")
    if not quantised:
        raise StageError("dynamic int8 found no MatMul or Gemm with a constant weight")
    return {"quantised": quantised, "left_float": kinds.count("MatMul") + kinds.count("Gemm"), "weight_bits": 7 if saturates else 8}
