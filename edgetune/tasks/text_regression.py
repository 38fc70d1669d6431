"""A number for a text, or for a pair of texts that one model reads together (a cross-encoder).

The model learns scores in standard deviations from their mean over the training rows, whatever their unit is; afterwards its last layer
is scaled, so that the model on disk, its graph and the bundle answer in the data's own unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import DataError, ModelError
from edgetune.tasks import Arrays, Encoded, Forward, Scores, batches, inputs, padded, texts, tokens
from edgetune.tasks.correlation import pearson, spearman

if TYPE_CHECKING:
    import torch


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """Rows with `text`, `score` and perhaps `text_pair` -> examples with `input_ids` and `score`; a row without a score has none (nan)."""
    examples, cut = tokens(tokenizer, *texts(rows), max_length=max_length)
    return Encoded([{**example, "score": row.get("score", float("nan"))} for example, row in zip(examples, rows, strict=True)], cut)


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """`labels` [b] float32."""
    return {**padded(examples, pad_id), "labels": np.array([example["score"] for example in examples], dtype=np.float32)}


def loss(outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
    """Mean squared error of `logits` [b, 1]; a number has no other labels to smooth over."""
    from torch.nn.functional import mse_loss

    return mse_loss(outputs["logits"].float().squeeze(-1), batch["labels"])


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """value: what the model says, weight 1; extra [n, 1]: the score that it should have said."""
    said = np.empty(len(examples), dtype=np.float64)
    for index in batches(examples, size):
        batch = collate([examples[i] for i in index], pad_id)
        said[index] = np.asarray(forward(inputs(batch))["logits"])[:, 0]
    wanted = np.array([[example["score"]] for example in examples], dtype=np.float64)
    return Scores(value=said, weight=np.ones(len(said)), extra=wanted)


def quality(scores: Scores) -> float:
    assert scores.extra is not None
    return spearman(scores.value, scores.extra[:, 0])


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """spearman, pearson, mean_absolute_error and mean_squared_error, the errors in the data's own unit (and its square)."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    assert scores.extra is not None
    wanted = scores.extra[:, 0]
    return {
        "spearman": quality(scores),
        "pearson": pearson(scores.value, wanted),
        "mean_absolute_error": float(mean_absolute_error(wanted, scores.value)),
        "mean_squared_error": float(mean_squared_error(wanted, scores.value)),
    }


class Standard:
    """The task while `model` learns it: scores in standard deviations `std` from their `mean`. Raises DataError where all scores are equal."""

    def __init__(self, examples: Sequence[Mapping[str, Any]], model: torch.nn.Module) -> None:
        known = np.array([example["score"] for example in examples], dtype=np.float64)
        if np.ptp(known) == 0:
            raise DataError(f"every score in train is {known[0]:g}", mend="check data.score: there is nothing to learn")
        self.mean, self.std = float(known.mean()), float(known.std())
        if _last(model).bias is None:  # nothing that could take up a mean
            self.mean, self.std = 0.0, float(np.sqrt(np.square(known).mean()))

    def collate(self, examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
        batch = collate(examples, pad_id)
        return {**batch, "labels": ((batch["labels"] - self.mean) / self.std).astype(np.float32)}

    def loss(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        return loss(outputs, batch)

    def score(self, forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
        def own(given: Arrays) -> Arrays:
            return {"logits": np.asarray(forward(given)["logits"], dtype=np.float64) * self.std + self.mean}

        return score(own, examples, pad_id, size)

    def finish(self, model: torch.nn.Module) -> None:
        """Scale the last layer, in place."""
        import torch

        layer = _last(model)
        with torch.no_grad():
            layer.weight.mul_(self.std)
            if layer.bias is not None:
                layer.bias.mul_(self.std).add_(self.mean)


training = Standard


def _last(model: torch.nn.Module) -> torch.nn.Linear:
    """The layer that says the number: the only one with one output that is trained. Raises ModelError when there is no such layer."""
    import torch

    found = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1 and m.weight.requires_grad]
    if len(found) != 1:
        raise ModelError(
            f"{len(found)} trained layers of {type(model).__name__} say one number; exactly one should", mend="choose another base model"
        )
    return found[0]
