"""onnxruntime sessions inside edgetune: for parity and for scoring, never for timing (see `runtime.measure`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.tasks import Forward


def start(path: Path, threads: int = 0) -> Any:
    """An `InferenceSession` on the CPU provider; `threads` 0: all cores. Idle threads sleep instead of spinning."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def forward(path: Path) -> Forward:
    """The graph as a function of ids and mask [b, s] int64 -> logits float32; a decoder starts from an empty past."""
    run = start(path)
    inputs = {entry.name: entry for entry in run.get_inputs()}

    def answer(input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        feeds = {"input_ids": input_ids, "attention_mask": attention_mask}
        if "position_ids" in inputs:
            feeds["position_ids"] = np.maximum(attention_mask.cumsum(-1) - 1, 0)
        for name, entry in inputs.items():
            if name.startswith("past_key_values"):
                _, heads, _, width = entry.shape
                feeds[name] = np.zeros((len(input_ids), heads, 0, width), dtype=np.float32)
        logits: np.ndarray = run.run(["logits"], feeds)[0]
        return logits

    return answer
