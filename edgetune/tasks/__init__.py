"""What can be learned: one row a task, one module a row.

A task's module holds these functions; nothing else in edgetune knows a task by name.

    encode(rows, tokenizer, *, max_length, labels) -> Encoded
    collate(examples, pad_id) -> dict of numpy arrays, int64 unless said otherwise: those of INPUTS that the model reads, and what it learns
    loss(outputs, batch, smoothing) -> torch scalar, the mean over what is learned from (batch["labels"] != -100); `outputs` by name
    score(forward, examples, pad_id, size) -> Scores, `size` rows at a time; `forward(inputs by name)` gives float32 outputs by name
    metrics(scores, labels) -> {name: value}, named as scikit-learn and seqeval name them, fractions

and, where the task has them:

    classes(rows) -> the labels, in their order
    quality(scores) -> the metric that the gate decides, where it is no sum(value) / sum(weight)
    report(scores, labels) -> a row a label
    calibrate(scores, recipe) -> what an app needs beside the outputs (a temperature, thresholds), chosen on the scores of validation
    calibrated(scores, facts) -> metrics of what the app then answers
    weights(examples, labels) -> Weights, and loss(outputs, batch, smoothing, weights): of tasks with classes, see `balance`
    drawn(examples, temperature, chance) -> indices of an epoch's rows, where they are of several data sets
    asked(rows, tokenizer, max_length) -> [generated.Asked], answer(row) -> text: of tasks that write, see `generated`
    training(examples, model) -> what learns in the module's place, where a model learns in another unit than it answers in: it has
        `collate`, `loss` and `score`, and `finish(model)` brings the trained model to the unit of its answers
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from typing import Any

import numpy as np

from edgetune.table import pick
from edgetune.tasks.rows import TASKS, Task

Arrays = Mapping[str, np.ndarray]
Forward = Callable[[Arrays], Arrays]
Weights = tuple[np.ndarray, ...]  # of classes, an array for each output
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids")  # what a model may read of a batch


# Architectures, in a model's configuration, that stand beside the class of their task.
OWN = {
    "PooledClassifier": "edgetune.tasks.pooled_classifier:PooledClassifier",
    "PatternClassifier": "edgetune.tasks.pattern_classifier:PatternClassifier",
}


def loader(task: Task, architectures: Sequence[str] | None = None) -> Any:
    """What loads a model for `task`: an Auto class of transformers, or a class of edgetune's own with the same methods."""
    own = (OWN[name] for name in architectures or () if name in OWN)
    module, _, name = next(own, task.auto_class).rpartition(":")
    return getattr(import_module(module or "transformers"), name)


@dataclass(frozen=True)
class Encoded:
    """Rows as token ids. `cut`: rows that lost tokens; `left_out`: (row index, reason) of rows that cannot be used; `lost`: words with a tag
    that no token is left of."""

    examples: list[dict[str, Any]]
    cut: int = 0
    left_out: list[tuple[int, str]] = field(default_factory=list)
    lost: int = 0


@dataclass(frozen=True)
class Scores:
    """What a model said about some rows, row by row, so that two models can be compared in pairs.

    `value` [n] float64 and `weight` [n] float64: the metric that the gate decides is sum(value) / sum(weight)
    (classification: right or wrong, weight 1; generation: negative log-likelihood and number of tokens), unless the task has a `quality`.
    `logits` [m, classes] float32 and `target` [m] int64 where there are classes, else None: one line a row, or `lines` [n] int64 of them
    (tokens of a row). Several classes a row: `target` [m, classes], 0 or 1. `extra` [n, k] float64: what else the task's metrics are made of.
    """

    value: np.ndarray
    weight: np.ndarray
    logits: np.ndarray | None = None
    target: np.ndarray | None = None
    lines: np.ndarray | None = None
    extra: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Scores:
        """Those of some rows, by their indices."""
        places = rows
        if self.lines is not None:
            counts = self.lines[rows]
            first = (self.lines.cumsum() - self.lines)[rows] - (counts.cumsum() - counts)
            places = np.repeat(first, counts) + np.arange(counts.sum())
        of_lines = {name: part[places] for name in ("logits", "target") if (part := getattr(self, name)) is not None}
        of_rows = {name: part[rows] for name in ("lines", "extra") if (part := getattr(self, name)) is not None}
        return Scores(self.value[rows], self.weight[rows], **of_lines, **of_rows)


def joined(parts: Sequence[Scores]) -> Scores:
    """The scores of several sets of rows as one."""
    if len(parts) == 1:
        return parts[0]
    columns = {part.name: [getattr(one, part.name) for one in parts] for part in fields(Scores)}
    return Scores(**{name: np.concatenate(column) for name, column in columns.items() if all(part is not None for part in column)})


def flips(before: Scores, after: Scores) -> dict[str, int]:
    """How many rows went from right to wrong and back; nothing where a row is neither, but a number or several answers."""
    values, weights = (np.concatenate([getattr(one, name) for one in (before, after)]) for name in ("value", "weight"))
    if before.logits is None or not np.isin(values, (0, 1)).all() or not np.isin(weights, (0, 1)).all():
        return {}
    known = before.weight > 0
    gained = (after.value - before.value)[known]
    return {"right_to_wrong": int((gained < 0).sum()), "wrong_to_right": int((gained > 0).sum())}


def get(name: str) -> Task:
    return pick(TASKS, name, "task")


def of(name: str, columns: Collection[str]) -> Task:
    """The task as data with these columns has it: a text that may be absent, and is, is not asked for."""
    task = get(name)
    return replace(task, asks=tuple(column for column in task.asks if column in columns or column not in task.optional))


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


def inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of `batch` a model reads."""
    return {name: batch[name] for name in INPUTS if name in batch}


def padded(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """input_ids, attention_mask and, where the examples have them, token_type_ids: [b, longest] int64, padded on the right."""
    ids = [example["input_ids"] for example in examples]
    found = {"input_ids": pad(ids, pad_id), "attention_mask": pad([[1] * len(row) for row in ids], 0)}
    if "token_type_ids" in examples[0]:
        found["token_type_ids"] = pad([example["token_type_ids"] for example in examples], 0)
    return found


def texts(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], ...]:
    """The texts of `rows`, and their second texts where they have one."""
    names = ("text", "text_pair") if rows and "text_pair" in rows[0] else ("text",)
    return tuple([row[name] for row in rows] for name in names)


def tokens(tokenizer: Any, *texts: Sequence[str], max_length: int) -> tuple[list[dict[str, Any]], int]:
    """(examples of the texts, or of the pairs of texts, cut to `max_length` tokens; how many were cut).

    A pair has `token_type_ids` where the model tells its two parts apart by them.
    """
    if not texts[0]:
        return [], 0
    kept = tokenizer(*texts, truncation=True, max_length=max_length)
    whole = tokenizer(*texts, truncation=False, verbose=False)["input_ids"]
    names = ["input_ids", *(["token_type_ids"] if len(texts) > 1 and "token_type_ids" in kept else [])]
    examples = [dict(zip(names, row, strict=True)) for row in zip(*(kept[name] for name in names), strict=True)]
    return examples, sum(len(a) > len(b["input_ids"]) for a, b in zip(whole, examples, strict=True))


def asked(row: Mapping[str, Any], task: Task) -> tuple[str, ...]:
    """What an app gives of `row`: the fields of `task.asks` that it has."""
    return tuple(row[name] for name in task.asks if name in row)


def said_beside(task: Task, validation: Scores, test: Scores, recipe: Any) -> dict[str, Any]:
    """`confidence`: what the task's `calibrate` chose on validation, and under `test` how the answers made with it do; nothing without one."""
    if not hasattr(task.module, "calibrate"):
        return {}
    chosen = task.module.calibrate(validation, recipe)
    return {"confidence": {**chosen, "test": task.module.calibrated(test, chosen)}}
