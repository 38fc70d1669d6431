"""Which methods learn from made rows, and what the first model is that labels texts."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgetune import methods, source
from edgetune.data import augment
from edgetune.errors import RecipeError
from edgetune.recipe import AUTO, Recipe
from edgetune.sections import AugmentKeys, SearchKeys

KEYS = {"kinds", "copies", "threshold"}  # that decide which rows are made
TAUGHT = ("self-training", "generation")  # kinds whose rows a first model judges


def check(recipe: Recipe) -> None:
    """Raises RecipeError for rows that cannot be made, or that the method does not learn from."""
    augment.check(recipe)
    if recipe.augment.generator and not source.is_remote(recipe.augment.generator):
        source.resolve(recipe.augment.generator, recipe.trust_remote_code)
    kinds = recipe.augment.kinds
    if not kinds or recipe.method == AUTO:
        return
    if recipe.method not in methods.METHODS:
        raise RecipeError("augment.kinds is given, but the model was trained elsewhere", mend="leave augment.kinds away")
    if recipe.method == "distillation":
        what = "method distillation alters texts itself, and needs no labels for them"
        raise RecipeError(what, mend="distillation.copies and distillation.unlabelled, without --augment")
    if recipe.method in methods.UNTAUGHT:
        raise RecipeError(f"{recipe.method} learns from no row, made ones neither", mend="--method linear-probe, or without --augment")
    if "mixup" in kinds and hasattr(import_module(methods.get(recipe.method).module), "training"):
        what = f"mixup mixes labels, but method {recipe.method} learns something else"
        raise RecipeError(what, mend="leave mixup out of --augment, or --method full")


def makes(recipe: Recipe) -> bool:
    """Whether there are rows to make: mixup mixes those that there are."""
    return any(kind in TAUGHT or augment.AUGMENTATIONS[kind].alter for kind in recipe.augment.kinds)


def first(recipe: Recipe) -> Recipe | None:
    """The same recipe without made rows, for the model that judges texts; none where it asks for no kind that needs one."""
    if not set(TAUGHT) & set(recipe.augment.kinds):
        return None
    changed: dict[str, Any] = {"augment": AugmentKeys(), "search": SearchKeys()}
    return recipe.model_copy(update=changed | {"adapt": recipe.adapt.model_copy(update={"baselines": False, "from_scratch": False})})
