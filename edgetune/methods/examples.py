"""Rows as token ids, and what a model says of them; what was cut or left out is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel

from edgetune import progress
from edgetune.errors import DataError, GateError
from edgetune.methods.model import forward
from edgetune.tasks import Arrays, Encoded, Scores, Task


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
