"""Rows as token ids, and what a model says of them; what was cut or left out is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from edgetune import data, progress, tasks
from edgetune.artifact import Dataset
from edgetune.errors import DataError, GateError
from edgetune.methods.device import Device, choose
from edgetune.methods.model import base_config, forward, load_tokenizer, max_length
from edgetune.recipe import Recipe
from edgetune.tasks import Arrays, Encoded, Scores, Task


@dataclass(frozen=True)
class Given:
    """What a run learns from and is judged on: the `rows` of train, validation and test, as token ids in `splits`, at most `longest` each."""

    task: Task
    labels: list[str]
    tokenizer: Any
    longest: int
    device: Device
    rows: Mapping[str, list[dict[str, Any]]]
    splits: Mapping[str, list[dict[str, Any]]]

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    def encoded(self, rows: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
        """More rows of the same kind; see `encode`."""
        return encode(self.task, rows, self.tokenizer, self.longest, self.labels, name)

    def scored(self, model: PreTrainedModel, examples: Sequence[Mapping[str, Any]], name: str) -> Scores:
        return score(self.task, model, examples, self.pad_id, name)

    def metrics(self, scores: Scores) -> dict[str, float]:
        found: dict[str, float] = self.task.module.metrics(scores, self.labels)
        return found


def given(recipe: Recipe, dataset: Dataset) -> Given:
    """The rows that prepare left, for the recipe's base and on its device."""
    task, labels, tokenizer = tasks.get(recipe.task), list(dataset.facts["labels"]), load_tokenizer(recipe)
    longest, device = max_length(recipe, base_config(recipe), tokenizer), choose(recipe.adapt)
    rows = {name: data.rows(dataset.path, name) for name in ("train", "validation", "test")}
    splits = {name: encode(task, some, tokenizer, longest, labels, name) for name, some in rows.items()}
    return Given(task, labels, tokenizer, longest, device, rows, splits)


def encode(
    task: Task, rows: Sequence[Mapping[str, Any]], tokenizer: Any, longest: int, labels: Sequence[str], split: str
) -> list[dict[str, Any]]:
    """Token ids of one split; what was cut or left out is said. Raises DataError when nothing is left."""
    encoded: Encoded = task.module.encode(rows, tokenizer, max_length=longest, labels=labels)
    if encoded.cut:
        progress.warn(f"{split}: {encoded.cut} of {len(rows)} texts are longer than {longest} tokens and were cut (adapt.max_length)")
    if encoded.lost:
        progress.warn(
            f"{split}: {encoded.lost} words with a tag have no token (cut off, or dropped by the tokenizer): they count as outside"
        )
    if encoded.left_out:
        first = ", ".join(f"row {rows[i]['row']}: {reason}" for i, reason in encoded.left_out[:3])
        progress.warn(
            f"{split}: {len(encoded.left_out)} of {len(rows)} rows left out ({first}{', ...' if len(encoded.left_out) > 3 else ''})"
        )
    if not encoded.examples:
        raise DataError(f"no row of {split} can be used", mend="raise adapt.max_length, or check the data: edgetune data check")
    if any(not example["input_ids"] or not _learned_from(example) for example in encoded.examples):
        raise GateError(f"{split}: a row has no token to learn from")
    return encoded.examples


def _learned_from(example: Mapping[str, Any]) -> bool:
    labels = example.get("labels")
    return labels is None or any(label != -100 for label in labels)


def score(task: Task, model: PreTrainedModel, examples: Sequence[Mapping[str, Any]], pad_id: int, split: str) -> Scores:
    """What the model says of one split, in float32."""
    run = forward(model)
    with progress.bar(f"scoring {split}", len(examples)) as bar:

        def counted(given: Arrays) -> Arrays:
            bar.advance(len(given["input_ids"]))
            return run(given)

        scores: Scores = task.module.score(counted, examples, pad_id)
    return scores
