"""The numbers of a training: the recipe's, and the method's own in the place of zeros."""

from __future__ import annotations

import math

from edgetune import methods, tasks
from edgetune.methods import loop
from edgetune.recipe import Recipe

MOST_EPOCHS = 20


def resolve(recipe: Recipe, rows: int) -> loop.Settings:
    """The recipe's numbers, with the method's defaults in place of zeros, for `rows` training rows (or pairs of them)."""
    task, method, keys = tasks.get(recipe.task), methods.get(recipe.method), recipe.adapt
    defaults = method.defaults[task.family]
    batch_size = keys.batch_size or defaults.batch_size
    return loop.Settings(
        epochs=keys.epochs or _epochs(defaults, math.ceil(rows / batch_size)),
        batch_size=batch_size,
        accumulation=keys.accumulation,
        learning_rate=keys.learning_rate or defaults.learning_rate,
        warmup=keys.warmup,
        weight_decay=keys.weight_decay,
        clip_norm=keys.clip_norm,
        label_smoothing=task.smoothing if keys.label_smoothing is None else keys.label_smoothing,
        early_stopping=keys.early_stopping,
        max_steps=keys.max_steps,
        checkpoint_every=keys.checkpoint_every,
        seed=recipe.seed,
    )


def _epochs(defaults: methods.Defaults, per_epoch: int) -> int:
    """The method's epochs; more where the rows are so few that they would give under `defaults.least_steps` steps."""
    return max(defaults.epochs, min(MOST_EPOCHS, math.ceil(defaults.least_steps / per_epoch)))
