"""A Hugging Face directory in PyTorch, timed as run.py times a bundle: `python -m edgetune.runtime.pytorch FOLDER --benchmark ...`.

A process of its own; prints the JSON that `run.py --benchmark` prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.runtime import timing

if TYPE_CHECKING:
    from edgetune.tasks import Task

Item = str | Mapping[str, str]
Row = dict[str, list[int]]
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

    import torch
    import transformers

    from edgetune import tasks
    from edgetune.tasks import pad

    torch.set_num_threads(asked.threads)
    torch.set_grad_enabled(False)
    started = time.perf_counter()
    task = tasks.of(asked.task, asked.asks.split(","))
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked.folder, local_files_only=True)
    model = load(asked.folder, task)
    load_ms = (time.perf_counter() - started) * 1000
    words = model.config.get_text_config().vocab_size
    start = task.module.start_id(tokenizer) if task.family == "seq2seq" else 0

    def filled(length: int) -> Row:
        return {"input_ids": [1 + i % (words - 1) for i in range(min(length, asked.max_length))]}

    def forward(rows: list[Row]) -> None:
        feeds = {name: pad([row[name] for row in rows], 0) for name in rows[0]}
        mask = pad([[1] * len(row["input_ids"]) for row in rows], 0)
        given = {name: torch.from_numpy(value) for name, value in feeds.items()}
        if task.family == "seq2seq":
            given["decoder_input_ids"] = torch.full((len(rows), 1), start)
        model(attention_mask=torch.from_numpy(mask), **given)

    read = _reader(task, tokenizer, asked.max_length)
    items = [item for item in asked.texts if (made := read(item)) and all(0 < len(row["input_ids"]) <= asked.max_length for row in made)]
    real = [row for item in items for row in read(item)] or [filled(length) for length in asked.lengths]
    forward([real[0]])
    cold_start_ms = timing.since_start_ms()
    latency = []
    for sequence in asked.sequence:
        rows = timing.batches(real if sequence is None else [filled(sequence)], asked.batch)
        found = timing.passes(forward, rows, asked.runs, asked.seconds)
        length = timing.mean_length([[row["input_ids"] for row in some] for some in rows])
        entry = {"batch": asked.batch, "sequence": length, "lengths": "fixed" if sequence else "real", **found}
        if sequence is None:
            said = timing.batches(items or [_spoken(task, tokenizer, row["input_ids"]) for row in real], asked.batch)
            entry["text_ms"] = timing.passes(
                lambda some: forward([row for item in some for row in read(item)]), said, asked.runs, asked.seconds
            )["ms"]
        latency.append(entry)
    decode = None
    if task.family != "encoder":
        prompt = filled(max(1, min(128, asked.max_length - DECODE_STEPS - 1)))["input_ids"]
        ids = torch.tensor([prompt])
        ahead = {"input_ids": ids}
        if task.family == "seq2seq":
            ahead = {"encoder_outputs": model.get_encoder()(ids), "decoder_input_ids": torch.tensor([[start]])}
        decode = {"prompt": len(prompt), "ms": _decode(model, ahead)}
    return {
        **{"runtime": f"torch {torch.__version__}", "provider": "PyTorch", "threads": torch.get_num_threads()},
        **{"load_ms": load_ms, "cold_start_ms": cold_start_ms, "peak_rss_bytes": timing.peak_rss_bytes()},
        **{"latency": latency, "decode": decode},
    }


def load(folder: Path, task: Task) -> Any:
    """The float32 model in `folder`, in evaluation mode."""
    import torch
    import transformers

    from edgetune import tasks

    kind = tasks.loader(task, transformers.AutoConfig.from_pretrained(folder, local_files_only=True).architectures)
    return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def _reader(task: Task, tokenizer: Any, max_length: int) -> Callable[[Item], list[Row]]:
    """An item -> its rows, as the bundle makes them."""
    if task.family == "decoder":
        from edgetune.tasks.text_generation import prompt_parts

        prefix, suffix = prompt_parts(tokenizer)

    def read(item: Item) -> list[Row]:
        fields = [item] if isinstance(item, str) else [item[name] for name in task.asks]
        if task.family == "decoder":
            return [{"input_ids": tokenizer(prefix + fields[0].strip() + suffix, add_special_tokens=False)["input_ids"]}]
        if "question" in task.asks:
            return _windows(tokenizer, fields[0], fields[1], max_length)
        found = tokenizer(*fields, truncation=True, max_length=max_length)
        return [{name: found[name] for name in ("input_ids", "token_type_ids") if name in found}]

    return read


def _windows(tokenizer: Any, question: str, context: str, max_length: int) -> list[Row]:
    """The rows of a question on a context; none where the question leaves no room for it."""
    from edgetune.runtime.answers.question_answering import STRIDE

    room = max_length - len(tokenizer(question, context, truncation=False, verbose=False)["input_ids"])
    room += len(tokenizer(context, add_special_tokens=False, verbose=False)["input_ids"])
    if room < 1:
        return []
    cut = {"truncation": "only_second", "stride": min(STRIDE, room // 2), "return_overflowing_tokens": True}
    found = tokenizer(question, context, max_length=max_length, **cut)
    names = [name for name in ("input_ids", "token_type_ids") if name in found]
    return [dict(zip(names, row, strict=True)) for row in zip(*(found[name] for name in names), strict=True)]


def _spoken(task: Task, tokenizer: Any, ids: list[int]) -> Item:
    """An item that is about as long as `ids`: as many equal parts as are asked."""
    size = -(-len(ids) // len(task.asks))
    return {name: tokenizer.decode(ids[i * size : (i + 1) * size], skip_special_tokens=True) for i, name in enumerate(task.asks)}


def _decode(model: Any, given: Mapping[str, Any]) -> list[float]:
    """Times of single greedy tokens, in ms, after what is `given` of the model's inputs: a prompt, or a text that was read and a start."""
    found = model(**given, use_cache=True)
    *read, name = given  # what stays, and where the next token goes

    def step(_: Any) -> None:
        nonlocal found
        token = found.logits[:, -1:].argmax(-1)
        found = model(**{part: given[part] for part in read}, **{name: token}, past_key_values=found.past_key_values, use_cache=True)

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
    add("--asks", required=True)
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
