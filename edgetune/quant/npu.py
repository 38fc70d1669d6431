"""Static quantisation of the whole graph (QDQ) for NPUs that compute in integers only: 16-bit activations, 8-bit weights.

Every operator gets ranges, so that none has to leave the accelerator. What hides padding is a number like any other there: the lowest
float32 in the scores would leave no steps for the scores themselves, so it becomes MASKED.
See onnxruntime's "QNN Execution Provider", "Running a model with QNN EP's HTP backend".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

from edgetune.errors import StageError
from edgetune.quant import Context
from edgetune.quant.calibration import Rows, quiet

MASKED = -100.0  # exp(-100) adds nothing to a softmax, and a range of 100 in 65536 steps keeps scores to 0.002


def u16u8(graph: Path, out: Path, context: Context) -> dict[str, Any]:
    """Write `graph`, which must have fixed shapes, with u16 activations and u8 weights to `out`. Raises StageError otherwise, and without rows."""
    model = onnx.load(graph)
    shapes = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.input}
    if not all(size for shape in shapes.values() for size in shape):
        raise StageError("u16u8-static needs a graph of fixed shapes", mend='runtime.shapes = "static" in the target')
    given = context.calibration
    rows = Rows((lambda: fitted(given(), model.graph)) if given else None)
    softened = _soften(model.graph)
    del model.graph.value_info[:]
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{index}"
    kept = {node.name for node in model.graph.node if node.op_type in context.float_ops} | context.keep_float
    with quiet():
        config = get_qnn_qdq_config(
            model, rows, activation_type=QuantType.QUInt16, weight_type=QuantType.QUInt8, stride=1, nodes_to_exclude=sorted(kept)
        )
        quantize(model, out, config)
    kinds = [node.op_type for node in onnx.load(out, load_external_data=False).graph.node]
    return {
        "quantised": len(model.graph.node) - len(kept),
        "left_float": len(kept),
        "quantize_nodes": kinds.count("QuantizeLinear"),
        "masks_softened": softened,
        "calibration": {"method": "MinMax", "rows": len(rows)},
    }


def fitted(rows: Iterator[Mapping[str, np.ndarray]], graph: onnx.GraphProto) -> Iterator[dict[str, np.ndarray]]:
    """Rows cut or padded with zeros to the fixed length that `graph` takes, in its integer type."""
    inputs = {value.name: value.type.tensor_type for value in graph.input}
    for row in rows:
        made = {}
        for name, array in row.items():
            length = inputs[name].shape.dim[1].dim_value
            cut = array[:, :length].astype(helper.tensor_dtype_to_np_dtype(inputs[name].elem_type))
            made[name] = np.pad(cut, [(0, 0), (0, length - cut.shape[1])])
        yield made


def _soften(graph: onnx.GraphProto) -> int:
    """Constants below -1e30 become MASKED; how many."""
    constants = [
        *graph.initializer,
        *(a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"),
    ]
    lowest = [t for t in constants if t.data_type == onnx.TensorProto.FLOAT and (numpy_helper.to_array(t) < -1e30).any()]
    for tensor in lowest:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.where(values < -1e30, np.float32(MASKED), values), tensor.name))
    return len(lowest)
