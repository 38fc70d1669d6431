"""onnxruntime sessions inside edgetune: for parity and for scoring, never for timing (see `runtime.measure`)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.graph import files
from edgetune.tasks import Arrays, Forward

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


def forward(path: Path, pad_id: int = 0, optimization: str = "all", threads: int = 0, by_token: bool = False) -> Forward:
    """The graph as a function of inputs by name, [b, s] int64 -> float32 outputs by name; a decoder starts from an empty past.

    A graph of fixed shapes runs row by row, filled up with `pad_id`. Several threads may call it at once. `by_token`: the decoder of an
    encoder-decoder model gets one token at a time, as when it writes.
    """
    run, *decoder = (start(part, threads, optimization) for part in files(path))
    if decoder:
        return _written(run, decoder[0], by_token)
    taken = {entry.name: entry for entry in run.get_inputs()}
    outputs = [entry.name for entry in run.get_outputs() if not entry.name.startswith("present")]

    def answer(given: Arrays) -> Arrays:
        feeds = dict(given)
        if "position_ids" in taken:
            feeds["position_ids"] = np.maximum(given["attention_mask"].cumsum(-1) - 1, 0)
        for name, entry in taken.items():
            if name.startswith("past_key_values"):
                _, heads, _, width = entry.shape
                feeds[name] = np.zeros((len(given["input_ids"]), heads, 0, width), dtype=np.float32)
        length = given["input_ids"].shape[1]
        found = zip(*(run.run(outputs, part) for part in fitted(feeds, run, pad_id)), strict=True)
        said = {name: np.concatenate(arrays) for name, arrays in zip(outputs, found, strict=True)}
        return {name: array[:, :length] if of_tokens(name, array) else array for name, array in said.items()}

    return answer


def _written(reader: Any, writer: Any, by_token: bool) -> Forward:
    """An encoder and its decoder: `input_ids`, `attention_mask` and `decoder_input_ids` -> `logits` [b, t, vocabulary]."""
    read, left = ([entry.name for entry in run.get_outputs()] for run in (reader, writer))
    empty = {e.name: e.shape for e in writer.get_inputs() if e.name.endswith((".decoder.key", ".decoder.value"))}

    def answer(given: Arrays) -> Arrays:
        ids, mask = given["decoder_input_ids"], given["attention_mask"]
        said = reader.run(read, {"input_ids": given["input_ids"], "attention_mask": mask})
        fixed = {"encoder_attention_mask": mask, **{_past(name): array for name, array in zip(read, said, strict=True)}}
        past = {name: np.zeros((len(ids), heads, 0, width), dtype=np.float32) for name, (_, heads, _, width) in empty.items()}
        logits = []
        for start in range(0, ids.shape[1], 1 if by_token else ids.shape[1]):
            part = ids[:, start : start + 1] if by_token else ids
            found, *new = writer.run(left, {"input_ids": part, **fixed, **past})
            past = {_past(name): array for name, array in zip(left[1:], new, strict=True)}
            logits.append(found)
        return {"logits": np.concatenate(logits, axis=1)}

    return answer


def _past(name: str) -> str:
    return name.replace("present", "past_key_values")


def of_tokens(name: str, array: np.ndarray) -> bool:
    """Whether an output says something about every token; a graph of a fixed length does so about the padding too."""
    return array.ndim == 3 or name in ("start_logits", "end_logits")


def fitted(feeds: Mapping[str, np.ndarray], run: Any, pad_id: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Those of `feeds` that the session `run` takes, as it takes them: of its integer type and, when its shapes are fixed, row by row and padded on the right."""
    taken = {entry.name: entry for entry in run.get_inputs()}
    feeds = {name: value.astype(INTEGERS.get(taken[name].type, value.dtype), copy=False) for name, value in feeds.items() if name in taken}
    length = taken["input_ids"].shape[1]
    if not isinstance(length, int):
        yield dict(feeds)
        return
    for row in range(len(feeds["input_ids"])):
        part = {name: value[row : row + 1] for name, value in feeds.items()}
        yield {
            name: np.pad(v, ((0, 0), (0, length - v.shape[1])), constant_values=pad_id * (name == "input_ids")) for name, v in part.items()
        }
