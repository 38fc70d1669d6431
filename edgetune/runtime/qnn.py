"""Compile a graph ahead of time for Qualcomm's HTP, with the plugin provider of the package onnxruntime-qnn (extra `qnn`).

On x86-64 Linux the same package carries a simulator of the HTP: it proves answers and placement, never time.
See onnxruntime's "QNN Execution Provider" and "EP Context Design".
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx

from edgetune.errors import GateError, MissingExtra, StageError

PROVIDER = "QNNExecutionProvider"
CARRIERS = ("QuantizeLinear", "DequantizeLinear", "Constant", "Cast")  # at the edges; no work of their own


def compile(graph: Path, out: Path, *, min_share: float = 0.0, options: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write `graph` to `out` as EPContext nodes beside the binary that they name (`out` with `_qnn.bin`).

    `options` are the provider's (`soc_model`, `htp_arch`, ...). Returns where the nodes are (`placement`), and the size of the binary in bytes.
    Raises MissingExtra without onnxruntime-qnn, StageError when it cannot compile, GateError when less than `min_share` of the nodes
    is on the HTP.
    """
    session = _options(options or {})
    for key, value in {"ep.context_enable": "1", "ep.context_file_path": str(out), "ep.context_embed_mode": "0"}.items():
        session.add_session_config_entry(key, value)
    out.unlink(missing_ok=True)
    _start(graph, session)
    if not out.exists():
        raise GateError(
            "no node of the graph is on the HTP", mend="export with --set export.schemes=u16u8-static, fixed shapes and int32 ids"
        )
    placed = placement(graph, out)
    if placed["share"] < min_share:
        raise GateError(
            f"{placed['share']:.0%} of the nodes are on the HTP, the target asks for {min_share:.0%}",
            details=[f"on the CPU: {name} ({kind})" for name, kind in placed["fell_back"]],
        )
    return {"placement": placed, "binary_bytes": sum(path.stat().st_size for path in out.parent.glob(f"{out.stem}*.bin"))}


def placement(graph: Path, compiled: Path) -> dict[str, Any]:
    """Which nodes of `graph` are outside of the EPContext nodes of `compiled`, as `worker.placement` says it: `fell_back` has their names."""
    before, after = (list(onnx.load(path, load_external_data=False).graph.node) for path in (graph, compiled))
    contexts = [node for node in after if node.op_type == "EPContext"]
    fell_back = [(node.name, node.op_type) for node in after if node.op_type not in (*CARRIERS, "EPContext")]
    work = sum(node.op_type not in CARRIERS for node in before)
    taken = work - len(fell_back)
    left = dict(Counter(kind for _, kind in fell_back).most_common())
    return {
        **{"provider": PROVIDER, "nodes": work, "taken": taken, "share": taken / max(1, work)},
        **{"pieces": len(contexts), "left": left, "fell_back": fell_back},
    }


def run(compiled: Path, options: Mapping[str, str] | None = None) -> Any:
    """A session over what `compile` wrote: on the device, or here on the simulator. Raises as `compile`."""
    return _start(compiled, _options(options or {}))


def _options(options: Mapping[str, str]) -> Any:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    from edgetune.runtime.worker import plugged

    devices = plugged(PROVIDER)
    if not devices:
        raise MissingExtra("the package onnxruntime-qnn is not installed", mend="pip install 'edgetune[qnn]'")
    session = onnxruntime.SessionOptions()
    session.log_severity_level = 3
    session.add_provider_for_devices(devices[:1], {"backend_type": "htp", **options})
    return session


def _start(graph: Path, options: Any) -> Any:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException

    try:
        with _stdout_to_stderr():
            return onnxruntime.InferenceSession(str(graph), options)
    except (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException) as error:
        raise StageError(f"QNN cannot load {graph.name}: {str(error).splitlines()[0]}") from None


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What Qualcomm's libraries print, which no stream of Python's sees, does not end up in the answer."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        if sys.platform != "win32":
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
