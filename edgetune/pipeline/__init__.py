"""The fold over the stages: prepare -> adapt -> merge -> export -> benchmark, each done only when it is missing or stale."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune import methods, tasks
from edgetune.errors import RecipeError, RunError
from edgetune.methods import check
from edgetune.pipeline import shipping, training
from edgetune.quant import profile
from edgetune.recipe import AUTO, ELSEWHERE, Recipe, load
from edgetune.target import Target
from edgetune.workspace import existing, opened

STAGES = ("prepare", "adapt", "merge", "export", "benchmark")


def run(recipe: Recipe, until: str = "benchmark") -> Path:
    """Do every stage up to `until` in `recipe.output`; returns the run directory.

    Raises RequestError before anything is written when the recipe, the targets or the output cannot be used.
    """
    recipe = training.continued(recipe)
    if not recipe.task and recipe.data.path:
        from edgetune.data import infer

        recipe = recipe.model_copy(update={"task": infer.task(recipe)})
    recipe = methods.ranked(training.chosen(training.started(recipe)))
    check.complete(recipe, until)
    wanted = STAGES[: STAGES.index(until) + 1]
    devices = _targets(recipe) if "export" in wanted else ()
    with opened(recipe) as workspace:
        dataset = training.prepare(workspace, recipe)
        begun = training.start(workspace, recipe)
        merged = None
        if recipe.method == AUTO:
            recipe = training.choose(workspace, recipe, dataset, begun)
            check.complete(recipe, until)
        if recipe.method == ELSEWHERE:
            merged = training.adopt(workspace, recipe, dataset)
            training.other_tests(workspace, recipe, dataset, merged)
        elif "adapt" in wanted:
            adapted = training.adapt(workspace, recipe, dataset, begun)
            if recipe.adapt.generated and hasattr(tasks.get(recipe.task).module, "asked"):
                training.generate(workspace, recipe, dataset, adapted)
            plain = training.source_only(workspace, recipe, dataset, begun, adapted) if recipe.domain.unlabelled else None
            training.other_tests(workspace, recipe, dataset, adapted, plain)
            merged = training.merge(workspace, recipe, dataset, adapted) if "merge" in wanted else None
        if merged and "export" in wanted:
            bundles = shipping.export(workspace, recipe, devices, dataset, merged, begun)
            if "benchmark" in wanted:
                shipping.benchmark(workspace, devices, bundles)
    return workspace.path


def merge(path: Path) -> Path:
    """Adapt (when that is not done) and merge the run at `path`."""
    return run(_with(existing(path).recipe, {"output": str(path)}), "merge")


def export(path: Path, overrides: Mapping[str, Any]) -> Path:
    """Export a run, or a transformers or peft checkpoint trained elsewhere, with `overrides` (dotted recipe keys) over its recipe."""
    if (path / "recipe.toml").is_file():
        return run(_with(existing(path).recipe, {**overrides, "output": str(path)}), "export")
    if not path.is_dir():
        raise RunError(f"{path} is neither a run directory nor a checkpoint", mend="edgetune adapt --output RUN makes a run")
    return run(load(None, {"model": str(path), "method": ELSEWHERE, "output": f"{path.resolve().name}-edgetune", **overrides}), "export")


def _targets(recipe: Recipe) -> tuple[Target, ...]:
    task = tasks.get(recipe.task)
    found = tuple(profile.load(name) for name in recipe.export.targets)
    for device in found:
        if not device.schemes(task.family):
            raise RecipeError(
                f"target {device.name} does not run {task.name}", mend=f"edgetune targets show {device.name} says what it runs"
            )
    names = [device.name for device in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RecipeError(f"target {', '.join(sorted(twice))} is given twice")
    return found


def _with(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The run's recipe with other keys."""
    tree = recipe.model_dump(mode="json")
    flat = {f"{name}.{key}": item for name, value in tree.items() if isinstance(value, dict) for key, item in value.items()}
    flat |= {name: value for name, value in tree.items() if not isinstance(value, dict)}
    return load(None, flat | dict(overrides))
