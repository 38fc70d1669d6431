"""Settings found by trial: several trainings with other numbers, judged on validation alone.

optuna's tree-structured Parzen estimator proposes the settings (Bergstra et al., 2011; optuna: arXiv:1907.10902). The first trial is the recipe
as it is. A trial is given up after an epoch at which its best so far is under the median of the finished ones (Golovin et al., 2017) at the
same share of their training, not at the same epoch: the rate of each falls to zero over its own epochs, so a longer one is behind until its end.

Finished trials are JSON in the scratch space and the sampler is seeded by the trial's number, so a search that was killed goes on, and ends,
as if nothing had happened.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgetune import methods, progress, tasks
from edgetune.artifact import key_digest
from edgetune.errors import RecipeError, StageError
from edgetune.recipe import AUTO, Recipe
from edgetune.workspace import write_json

RATE, EPOCHS, SMOOTHING = "adapt.learning_rate", "adapt.epochs", "adapt.label_smoothing"
FACTORS = {RATE: 5.0, EPOCHS: 2.0}  # how far from the start, to either side
CHOICES: dict[str, tuple[Any, ...]] = {SMOOTHING: (0.0, 0.1, 0.2), "lora.rank": (4, 8, 16, 32)}
STARTUP = 4  # trials before the sampler learns from them, and finished ones before any is given up
REDRAWS = 50  # draws of settings that were tried already before there are said to be no others
DONE, PRUNED, DIVERGED = "done", "given up", "diverged"
KEPT = "trials.json"

Settings = dict[str, Any]  # dotted key of the recipe -> value
Stop = Callable[[Any], bool]  # the state of a training, after each epoch
Train = Callable[[Recipe, Path, Stop], Any]  # (recipe, scratch space) -> the state


@dataclass(frozen=True)
class Found:
    """The `recipe` with the settings that won, the scratch spaces of its training and of the one with the defaults (none where that
    diverged), and what there is to tell."""

    recipe: Recipe
    scratch: Path
    defaults: Path | None
    facts: dict[str, Any]


def varied(recipe: Recipe) -> list[str]:
    """The keys that a search tries other values of: those of the method that the recipe leaves at their defaults, and the task reads."""
    module, plain = tasks.get(recipe.task).module, methods.ranked(Recipe(method=recipe.method))
    asked = methods.ranked(recipe)
    left = [key for key in methods.get(recipe.method).searched if _value(asked, key) == _value(plain, key)]
    return [key for key in left if key != SMOOTHING or hasattr(module, "weights")]


def check(recipe: Recipe) -> None:
    """Raises RecipeError for a search that could find nothing."""
    trials = recipe.search.trials
    if not trials:
        if recipe.search.minutes:
            raise RecipeError("search.minutes is given, but no trials", mend="--search N tries N settings")
        return
    if trials == 1:
        raise RecipeError("search.trials = 1: the first trial is the defaults, and nothing is compared with them", mend="--search 10")
    if recipe.adapt.max_steps:
        raise RecipeError(
            f"search.trials = {trials} with adapt.max_steps = {recipe.adapt.max_steps}: trials that are cut off say nothing of whole ones",
            mend="leave one of them away; search.minutes is a limit for the search",
        )
    if recipe.method == AUTO:
        return  # asked again when there is one
    if recipe.method not in methods.METHODS:
        raise RecipeError(f"search.trials = {trials}, but the model was trained elsewhere", mend="leave search.trials away")
    if not varied(recipe):
        raise RecipeError(
            f"search.trials = {trials}, but nothing is left to search: the recipe gives every setting of method {recipe.method}",
            details=[f"{key} = {_value(recipe, key)}" for key in methods.get(recipe.method).searched],
            mend="leave one of them away, or search.trials",
        )


def search(recipe: Recipe, start: Mapping[str, Any], train: Train, scratch: Path) -> Found:
    """Up to `search.trials` trainings by `train`; `start` has what the recipe's zeros mean (see `loop.Settings`).

    `scratch` keeps what was tried, and the training of the best trial so far and of the first. Raises StageError when every trial diverged.
    """
    task, keys, asked = tasks.get(recipe.task), varied(recipe), methods.ranked(recipe)
    sign = 1 if task.higher_is_better else -1
    first = {key: start.get(key.partition(".")[2], _value(asked, key)) for key in keys}
    space = {key: _range(key, first[key]) for key in keys}
    done: list[dict[str, Any]] = json.loads((scratch / KEPT).read_text("utf-8")) if (scratch / KEPT).exists() else []
    progress.note(f"search: at most {recipe.search.trials} trials over {', '.join(f'{key} {_shown(space[key])}' for key in keys)}")
    with progress.bar("search", recipe.search.trials) as bar:
        bar.advance(len(done))
        while len(done) < recipe.search.trials:
            if recipe.search.minutes and sum(one["seconds"] for one in done) >= 60 * recipe.search.minutes:
                progress.note(f"search: {recipe.search.minutes:g} minutes are over after {len(done)} trials")
                break
            settings = _asked(first, space, done, recipe.seed, sign)
            if settings is None:
                progress.note("search: there are no other settings to try")
                break
            one = _tried(recipe, settings, done, train, scratch, sign, bar)
            done.append(one)
            write_json(scratch / KEPT, done)
            progress.note(f"trial {one['trial'] + 1}: {task.metric.replace('_', ' ')} {_said(one)}; {_listed(settings)}")
            _forget(scratch, done, sign)
    best = _best(done, sign)
    if best is None:
        raise StageError("every trial diverged: its loss is no number", mend="give a lower adapt.learning_rate, and search the rest")
    _tell(task.metric, done, best)
    default = done[0] if done[0]["state"] == DONE else None
    return Found(
        _changed(recipe, best["settings"]),
        scratch / _folder(best),
        scratch / _folder(default) if default else None,
        {"metric": task.metric, "keys": keys, "trials": done, "kept": best["trial"]},
    )


def _tried(
    recipe: Recipe, settings: Settings, done: Sequence[Mapping[str, Any]], train: Train, scratch: Path, sign: int, bar: progress.Bar
) -> dict[str, Any]:
    """One trial, as it is kept."""
    from edgetune.methods.loop import Diverged

    metric, started = tasks.get(recipe.task).metric, time.monotonic()
    one: dict[str, Any] = {"trial": len(done), "settings": settings, "state": DONE, "epochs": [], "value": None, "tie": None}
    changed, length = _changed(recipe, settings), settings.get(EPOCHS) or recipe.adapt.epochs
    told = 0.0

    def stop(state: Any) -> bool:
        nonlocal told
        bar.advance(state.epoch / length - told, f"trial {one['trial'] + 1}")
        told = state.epoch / length
        values = [entry[metric] for entry in state.history]
        one["state"] = PRUNED if behind(values, length, done, sign) else DONE
        return one["state"] == PRUNED

    try:
        with progress.silent():
            state = train(changed, scratch / _folder(one), stop)
        best = max(state.history, key=lambda entry: (sign * entry[metric], entry["tie"]))
        one |= {"epochs": [entry[metric] for entry in state.history], "value": best[metric], "tie": best["tie"]}
    except Diverged:
        one["state"] = DIVERGED
    bar.advance(1 - told)
    return {**one, "length": length, "seconds": round(time.monotonic() - started, 3)}


def behind(values: Sequence[float], length: int, done: Sequence[Mapping[str, Any]], sign: int) -> bool:
    """Whether the best of `values`, one an epoch of `length`, is under the median of the finished trials at the same share of their training."""
    share = len(values) / length
    others = [
        max(sign * value for value in seen)
        for one in done
        if one["state"] == DONE and (seen := [value for i, value in enumerate(one["epochs"], 1) if i / one["length"] <= share])
    ]
    return bool(values) and len(others) >= STARTUP and max(sign * value for value in values) < median(others)


def _asked(first: Settings, space: Mapping[str, Any], done: Sequence[Mapping[str, Any]], seed: int, sign: int) -> Settings | None:
    """The settings of the next trial, which nobody has tried; None when there are no others."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if not done:
        return first
    states = {DONE: optuna.trial.TrialState.COMPLETE}
    known = [
        optuna.trial.create_trial(
            state=states.get(one["state"], optuna.trial.TrialState.PRUNED),
            value=None if one["value"] is None else sign * one["value"],
            params=one["settings"],
            distributions=dict(space),
            intermediate_values={round(100 * i / one["length"]): sign * value for i, value in enumerate(one["epochs"], 1)},
        )
        for one in done
    ]
    for draw in range(REDRAWS):
        chance = random.Random(f"{seed}/{len(done)}/{draw}").getrandbits(32)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=chance))
        study.add_trials(known)
        settings: Settings = study.ask(dict(space)).params
        if all(one["settings"] != settings for one in done):
            return settings
    return None


def _range(key: str, start: Any) -> Any:
    """The values of `key` to try, `start` among them."""
    from optuna import distributions

    if key == RATE:
        return distributions.FloatDistribution(start / FACTORS[key], start * FACTORS[key], log=True)
    if key == EPOCHS:
        return distributions.IntDistribution(max(1, round(start / FACTORS[key])), round(start * FACTORS[key]))
    return distributions.CategoricalDistribution(CHOICES[key])


def _shown(space: Any) -> str:
    choices = getattr(space, "choices", None)
    return ", ".join(f"{choice:g}" for choice in choices) if choices else f"{space.low:g} to {space.high:g}"


def _best(done: Sequence[dict[str, Any]], sign: int) -> dict[str, Any] | None:
    """The best finished trial: of equals the defaults, else the one that `tie` prefers."""
    whole = [one for one in done if one["state"] == DONE]
    return max(whole, key=lambda one: (sign * one["value"], one["trial"] == 0, one["tie"]), default=None)


def _tell(metric: str, done: Sequence[Mapping[str, Any]], best: Mapping[str, Any]) -> None:
    name, default = metric.replace("_", " "), done[0]
    if best["trial"] == 0:
        progress.note(f"search: nothing beats the defaults on validation ({name} {best['value']:.4f}): they are kept")
        return
    against = "diverged" if default["state"] == DIVERGED else f"{default['value']:.4f}"
    progress.note(
        f"search: trial {best['trial'] + 1} is kept: validation {name} {best['value']:.4f} (the defaults: {against}); {_listed(best['settings'])}"
    )


def _said(one: Mapping[str, Any]) -> str:
    value = "-" if one["value"] is None else f"{one['value']:.4f}"
    return f"{value}, {one['state']} after {len(one['epochs'])} of {one['length']} epochs" if one["state"] != DIVERGED else DIVERGED


def _listed(settings: Settings) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in settings.items())


def _forget(scratch: Path, done: Sequence[dict[str, Any]], sign: int) -> None:
    """Remove the trainings that nobody will ask for: all but that of the best trial and of the first."""
    kept = {_folder(one) for one in (done[0], _best(done, sign)) if one}
    for place in scratch.iterdir():
        if place.is_dir() and place.name not in kept:
            shutil.rmtree(place)


def _folder(one: Mapping[str, Any]) -> str:
    return f"{one['trial']}-{key_digest(one['settings'])[:16]}"


def _value(recipe: Recipe, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(recipe, section), name)


def _changed(recipe: Recipe, settings: Settings) -> Recipe:
    """`recipe` with `settings` in it."""
    for key, value in settings.items():
        section, _, name = key.partition(".")
        recipe = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update={name: value})})
    return recipe
