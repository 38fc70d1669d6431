"""What can be learned: one row a task, one module a row.

A task's module holds these functions; nothing else in edgetune knows a task by name.

    encode(rows, tokenizer, *, max_length, labels) -> Encoded
    collate(examples, pad_id) -> dict of numpy arrays, int64 unless said otherwise
    loss(logits, batch, smoothing) -> torch scalar, the mean over what is learned from (batch["labels"] != -100)
    score(forward, examples, pad_id, size) -> Scores, `size` rows at a time; `forward(input_ids, attention_mask)` gives float32 logits
    metrics(scores, labels) -> {name: value}, named as scikit-learn names them, fractions
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import numpy as np

from edgetune.table import pick

Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Task:
    name: str
    title: str
    family: Literal["encoder", "decoder"]
    auto_class: str  # of transformers
    columns: Mapping[str, tuple[str, ...]]  # column -> names under which it is found, best first
    metric: str  # decides the accuracy gate and early stopping
    higher_is_better: bool
    example: str  # one row, as JSON, for `edgetune tasks`
    optional: frozenset[str] = frozenset()  # columns that may be absent

    @property
    def module(self) -> ModuleType:
        return import_module(f"edgetune.tasks.{self.name.replace('-', '_')}")


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids. `cut`: rows that lost tokens; `left_out`: (row index, reason) of rows that cannot be used."""

    examples: list[dict[str, Any]]
    cut: int = 0
    left_out: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Scores:
    """What a model said about some rows, row by row, so that two models can be compared in pairs.

    `value` [n] float64 and `weight` [n] float64: the metric that the gate decides is sum(value) / sum(weight)
    (classification: right or wrong, weight 1; generation: negative log-likelihood and number of tokens).
    `logits` [n, classes] float32 and `target` [n] int64 for classification, else None.
    """

    value: np.ndarray
    weight: np.ndarray
    logits: np.ndarray | None = None
    target: np.ndarray | None = None


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="text-classification",
            title="one label for a text",
            family="encoder",
            auto_class="AutoModelForSequenceClassification",
            columns={
                "text": ("text", "sentence", "utterance", "query", "content", "message", "review", "input"),
                "label": ("label", "labels", "category", "intent", "class", "target", "sentiment"),
            },
            metric="accuracy",
            higher_is_better=True,
            example='{"text": "turn on the kitchen light", "label": "lights_on"}',
        ),
        Task(
            name="text-generation",
            title="a text that answers a prompt",
            family="decoder",
            auto_class="AutoModelForCausalLM",
            columns={
                "prompt": ("prompt", "instruction", "question", "input", "nl"),
                "completion": ("completion", "response", "answer", "output", "cm"),
            },
            metric="perplexity",
            higher_is_better=False,
            example='{"prompt": "list all png files", "completion": "find . -name \'*.png\'"}',
        ),
    )
}


def get(name: str) -> Task:
    return pick(TASKS, name, "task")


def batches(examples: Sequence[Mapping[str, Any]], size: int) -> list[list[int]]:
    """Indices of `examples` in batches of like length, shortest first."""
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["input_ids"]))
    return [order[start : start + size] for start in range(0, len(order), size)]


def pad(rows: Sequence[Sequence[int]], value: int) -> np.ndarray:
    """Rows of unequal length -> [len(rows), longest] int64, padded on the right with `value`."""
    out = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out
