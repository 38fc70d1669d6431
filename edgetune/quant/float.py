"""Float forms of the graph: as it is, and in 16 bits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgetune.quant import Context


def fp32(graph: Path, out: Path, context: Context) -> dict[str, Any]:
    """The candidate that always keeps the metric."""
    shutil.copyfile(graph, out)
    return {}


def fp16(graph: Path, out: Path, context: Context) -> dict[str, Any]:
    """Weights and activations in float16, by onnxruntime's converter; inputs and outputs keep their types.

    Values beyond +-65504 become that: the lowest float32 that masks use is low enough as -65504. `context.float_ops` and what the converter
    knows to lack float16 kernels stay in 32 bits, between casts.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(graph)
    del model.graph.value_info[:]
    blocked = [*DEFAULT_OP_BLOCK_LIST, *context.float_ops]
    model = convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked, node_block_list=sorted(context.keep_float))
    del model.graph.value_info[:]
    onnx.save(model, out)
    return {"kept_float": sorted({node.op_type for node in model.graph.node} & set(context.float_ops))}
