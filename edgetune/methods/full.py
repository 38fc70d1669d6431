"""All weights (`full`), or the new head alone on a frozen base (`head`); both leave a whole checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from edgetune.methods import HEADS
from edgetune.methods.model import Merge, load_base, load_merged
from edgetune.recipe import Recipe


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base model, with requires_grad on what will be trained."""
    model = load_base(recipe, labels)
    for name, weight in model.named_parameters():
        weight.requires_grad = recipe.method == "full" or any(part in HEADS for part in name.split("."))
    return model


def save(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)


def restore(recipe: Recipe, folder: Path, labels: Sequence[str]) -> PreTrainedModel:
    return load_merged(folder, recipe.task)


def merge(recipe: Recipe, folder: Path, labels: Sequence[str]) -> Merge:
    """There is nothing to fold in: the checkpoint is the merged model."""
    return Merge(load_merged(folder, recipe.task), restore(recipe, folder, labels), "its own weights")
