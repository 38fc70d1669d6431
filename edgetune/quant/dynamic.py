"""Dynamic int8: weights quantised ahead, activations at run time.

For encoders on CPUs with int8 dot products; see onnxruntime's quantization guide, "Dynamic Quantization". The embedding is
quantised too: it costs no time and is half of a small encoder's bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from edgetune.errors import StageError
from edgetune.graph import passes
from edgetune.quant import Context
from edgetune.quant.calibration import quiet
from edgetune.quant.weight_only import embed

OPERATORS = ("MatMul", "Gemm", "Attention", "Gather")


def int8(graph: Path, out: Path, context: Context, *, per_channel: bool, signed: bool = True, embedding_bits: int = 8) -> dict[str, Any]:
    """Write `graph` with 8-bit weights in linear layers and attention to `out`, and the embedding in 8 bits, or in 4-bit blocks of 32.

    Where the CPU adds pairs of u8 x s8 products in 16 bits (`context.saturates`), signed weights get 7 bits; unsigned ones need not.
    Raises StageError when nothing was quantised.
    """
    model = onnx.load(graph)
    del model.graph.value_info[:]
    model, fused = passes.fuse(model, context.keep_float)
    if any(item.name.startswith("past_key_values") for item in model.graph.input):
        passes.untie(model)  # a head that is the embedding turned round would be turned, in float, for every token
    if embedding_bits < 8:
        embed(model, embedding_bits)
    reduced = signed and context.saturates
    with quiet():
        quantize_dynamic(
            model,
            out,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=sorted(name for kept in context.keep_float for name in (kept, f"{kept}_MatMul")),  # of a Gemm
            per_channel=per_channel,
            reduce_range=reduced,
            weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
        )
    kinds = [node.op_type for node in onnx.load(out, load_external_data=False).graph.node]
    quantised = kinds.count("MatMulInteger") + kinds.count("QAttention")
    if not quantised:
        raise StageError("dynamic int8 found no MatMul or Gemm with a constant weight")
    left = kinds.count("MatMul") + kinds.count("Gemm")
    return {"quantised": quantised, "left_float": left, "weight_bits": 7 if reduced else 8, "fused": fused}
