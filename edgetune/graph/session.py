"""onnxruntime sessions inside edgetune: for parity and for scoring, never for timing (see `runtime.measure`)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.tasks import Forward

INTEGERS: dict[str, type[np.generic]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def start(path: Path, threads: int = 0, optimization: str = "all") -> Any:
    """An `InferenceSession` on the CPU provider; `threads` 0: all cores. Idle threads sleep instead of spinning.

    `optimization` is the level of a target's session: operators that are fused round differently.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    level = "ORT_DISABLE_ALL" if optimization == "disabled" else f"ORT_ENABLE_{optimization.upper()}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def forward(path: Path, pad_id: int = 0, optimization: str = "all") -> Forward:
    """The graph as a function of ids and mask [b, s] int64 -> logits float32; a decoder starts from an empty past.

    A graph of fixed shapes runs row by row, filled up with `pad_id`.
    """
    run = start(path, optimization=optimization)
    inputs = {entry.name: entry for entry in run.get_inputs()}

    def answer(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "position_ids" in inputs:
            feeds["position_ids"] = np.maximum(attention_mask.cumsum(-1) - 1, 0)
        for name, entry in inputs.items():
            if name.startswith("past_key_values"):
                _, heads, _, width = entry.shape
                feeds[name] = np.zeros((len(input_ids), heads, 0, width), dtype=np.float32)
        return np.concatenate([run.run(["logits"], part)[0] for part in fitted(feeds, run, pad_id)])

    return answer


def fitted(feeds: Mapping[str, np.ndarray], run: Any, pad_id: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """`feeds` as the session `run` takes them: of its integer type and, when its shapes are fixed, row by row and padded on the right."""
    inputs = {entry.name: entry for entry in run.get_inputs()}
    feeds = {name: value.astype(INTEGERS.get(inputs[name].type, value.dtype), copy=False) for name, value in feeds.items()}
    length = inputs["input_ids"].shape[1]
    if not isinstance(length, int):
        yield dict(feeds)
        return
    for row in range(len(feeds["input_ids"])):
        part = {name: value[row : row + 1] for name, value in feeds.items()}
        yield {
            name: np.pad(v, ((0, 0), (0, length - v.shape[1])), constant_values=pad_id * (name == "input_ids")) for name, v in part.items()
        }
