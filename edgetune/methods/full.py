"""All weights (`full`), or the new head alone on a frozen base (`head`); both leave a whole checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedModel

from edgetune.errors import RecipeError
from edgetune.methods import heads, pace
from edgetune.methods.model import Merge, load_base, load_merged
from edgetune.recipe import Recipe


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base model, with requires_grad on what will be trained. Raises RecipeError where method `head` finds no head."""
    model = load_base(recipe, labels)
    found = heads(name for name, _ in model.named_parameters())
    if recipe.method == "head" and not found:
        raise RecipeError(f"{recipe.task} has no head that could be trained on a frozen base", mend="--method full, or lora")
    for name, weight in model.named_parameters():
        weight.requires_grad = recipe.method == "full" or bool(found.intersection(name.split(".")))
    pace.freeze(recipe, model)
    return model


def save(model: PreTrainedModel, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)


def restore(recipe: Recipe, folder: Path, labels: Sequence[str]) -> PreTrainedModel:
    return load_merged(folder, recipe.task)


def merge(recipe: Recipe, folder: Path, labels: Sequence[str]) -> Merge:
    """There is nothing to fold in: the checkpoint is the merged model."""
    return Merge(load_merged(folder, recipe.task), restore(recipe, folder, labels), "its own weights")
