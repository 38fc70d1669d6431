"""A Hugging Face directory in PyTorch, timed as run.py times a bundle: `python -m edgetune.runtime.pytorch FOLDER --benchmark ...`.

A process of its own; prints the JSON that `run.py --benchmark` prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edgetune.runtime import timing

CPU = "CPUExecutionProvider"  # whose place PyTorch takes
DECODE_STEPS = 32


def main(arguments: list[str]) -> int:
    asked = _parse(arguments)
    if asked.provider not in (None, CPU):
        print(f"error: PyTorch is measured on the CPU, not with {asked.provider}", file=sys.stderr)
        return 2
    print(json.dumps(_benchmark(asked)))
    return 0


def _benchmark(asked: argparse.Namespace) -> dict[str, Any]:
    import time

    import numpy as np
    import torch
    import transformers

    from edgetune import tasks
    from edgetune.tasks import pad

    torch.set_num_threads(asked.threads)
    torch.set_grad_enabled(False)
    started = time.perf_counter()
    task = tasks.get(asked.task)
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked.folder, local_files_only=True)
    model = getattr(transformers, task.auto_class).from_pretrained(asked.folder, dtype=torch.float32, local_files_only=True).eval()
    load_ms = (time.perf_counter() - started) * 1000
    words = model.config.get_text_config().vocab_size

    def filled(length: int) -> list[int]:
        return [1 + i % (words - 1) for i in range(min(length, asked.max_length))]

    def logits(rows: list[list[int]]) -> np.ndarray:
        mask = torch.from_numpy(pad([[1] * len(row) for row in rows], 0))
        return model(input_ids=torch.from_numpy(pad(rows, 0)), attention_mask=mask).logits.numpy()

    encode = _encoder(task.family, tokenizer, asked.max_length)
    texts = [text for text in asked.texts if 0 < len(encode(text)) <= asked.max_length]
    real = [encode(text) for text in texts] or [filled(length) for length in asked.lengths]
    logits([real[0]])
    cold_start_ms = timing.since_start_ms()
    latency = []
    for sequence in asked.sequence:
        rows = timing.batches(real if sequence is None else [filled(sequence)], asked.batch)
        found = timing.passes(logits, rows, asked.runs, asked.seconds)
        item = {"batch": asked.batch, "sequence": timing.mean_length(rows), "lengths": "fixed" if sequence else "real", **found}
        if sequence is None:
            said = timing.batches(texts or [tokenizer.decode(ids) for ids in real], asked.batch)
            item["text_ms"] = timing.passes(lambda some: logits([encode(text) for text in some]), said, asked.runs, asked.seconds)["ms"]
        latency.append(item)
    decode = None
    if task.family == "decoder":
        prompt = filled(max(1, min(128, asked.max_length - DECODE_STEPS - 1)))
        decode = {"prompt": len(prompt), "ms": _decode(model, torch.tensor([prompt]))}
    return {
        **{"runtime": f"torch {torch.__version__}", "provider": "PyTorch", "threads": torch.get_num_threads()},
        **{"load_ms": load_ms, "cold_start_ms": cold_start_ms, "peak_rss_bytes": timing.peak_rss_bytes()},
        **{"latency": latency, "decode": decode},
    }


def _encoder(family: str, tokenizer: Any, max_length: int) -> Any:
    """A text -> its ids, as the bundle makes them."""
    if family == "encoder":
        return lambda text: tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
    from edgetune.tasks.text_generation import prompt_parts

    prefix, suffix = prompt_parts(tokenizer)
    return lambda text: tokenizer(prefix + text.strip() + suffix, add_special_tokens=False)["input_ids"]


def _decode(model: Any, prompt: Any) -> list[float]:
    """Times of single greedy tokens after `prompt` [1, s], in ms."""
    found = model(input_ids=prompt, use_cache=True)

    def step(_: Any) -> None:
        nonlocal found
        token = found.logits[:, -1:].argmax(-1)
        found = model(input_ids=token, past_key_values=found.past_key_values, use_cache=True)

    return [timing.milliseconds(step, i) for i in range(DECODE_STEPS)]


def _parse(arguments: list[str]) -> argparse.Namespace:
    def lines(path: str) -> list[str]:
        return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]

    def lengths(text: str) -> list[int]:
        return list(json.loads(text)) or [16]

    parser = argparse.ArgumentParser(prog="edgetune.runtime.pytorch")
    add = parser.add_argument
    add("folder", type=Path)
    add("--benchmark", action="store_true")
    add("--task", required=True)
    add("--provider")
    add("--texts", type=lines, default=[])
    add("--lengths", type=lengths, default=[16])
    add("--max-length", type=int, required=True)
    add("--threads", type=int, default=1)
    add("--batch", type=int, default=1)
    add("--sequence", type=lambda text: [None if part == "real" else int(part) for part in text.split(",")], default=[None])
    add("--runs", type=int, default=100)
    add("--seconds", type=float, default=3.0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
