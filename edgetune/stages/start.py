"""start: the model of a finished run becomes the base of another one, with a new head.

Continued pre-training is this after a run of fill-mask (Gururangan et al., "Don't Stop Pretraining", arXiv:2004.10964). What training starts
from is kept in the run itself, so that the other run may be moved or deleted afterwards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune import progress, tasks
from edgetune.artifact import Artifact, Merged
from edgetune.errors import ModelError, RecipeError, RunError
from edgetune.methods import POOLERS
from edgetune.recipe import Recipe
from edgetune.tasks import Task
from edgetune.workspace import Workspace, existing

STAGE = FOLDER = "start"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json")


def complete(recipe: Recipe) -> Recipe:
    """`recipe` with what the run that it starts from decides: model, and max_length where none is given.

    Raises RecipeError for what contradicts that run, or cannot start from it; RunError when it is not there or not finished.
    """
    before = origin(recipe)
    path, task, known = recipe.start, tasks.get(recipe.task), tasks.get(before["task"])
    if recipe.model not in ("", before["model"]):
        raise RecipeError(f"--from {path} and --model {recipe.model} both say where training starts", mend="leave one away")
    if known.family != task.family:
        fitting = [name for name, row in tasks.TASKS.items() if row.family == known.family]
        raise RecipeError(
            f"{path} is a run of {known.name}, whose model ({known.family}) is of no use to {task.name} ({task.family})",
            details=[f"tasks that can start from it: {', '.join(fitting)}"],
        )
    adapt = recipe.adapt.model_copy(update={"max_length": recipe.adapt.max_length or before["max_length"]})
    return recipe.model_copy(update={"model": before["model"], "adapt": adapt})


def origin(recipe: Recipe) -> Mapping[str, Any]:
    """What is known about the run that `recipe` starts from: `run`, `task`, `model` (its base), `max_length`, `merged` (the digest of its model).

    When it is gone, what this run has kept. Raises RunError.
    """
    path, own = Path(recipe.start), Workspace(Path(recipe.output))
    if not path.exists() and recipe.output and (kept := own.finished(STAGE, Artifact, FOLDER)) and kept.facts["run"] == recipe.start:
        return kept.facts
    run = existing(path)
    if path.resolve() == own.path.resolve():
        raise RunError(f"{path} cannot start from itself: a run is never changed", mend="choose another --output")
    if (merged := run.finished("merge", Merged, "merged")) is None:
        raise RunError(f"{path} is not finished: it has no merged/ as it was written", mend=f"edgetune merge {path}")
    asked = run.recipe
    return {
        **{"run": recipe.start, "task": asked.task, "method": asked.method, "model": asked.model},
        **{"max_length": merged.facts["max_length"], "merged": merged.digest},
    }


def start(recipe: Recipe, out: Path) -> dict[str, Any]:
    """Write the model that `recipe.start` left into `out`, without its head unless that is the task's own; returns `origin` and `head`.

    Raises ModelError when a model has no body that transformers loads alone.
    """
    found, task = origin(recipe), tasks.get(recipe.task)
    merged, kept = Path(recipe.start, "merged"), found["task"] == task.name and _general(task)
    if kept:
        shutil.copytree(merged, out, copy_function=_link, dirs_exist_ok=True)
    else:
        shutil.copytree(merged, out, copy_function=_link, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*WEIGHTS))
        _body(merged, recipe.trust_remote_code).save_pretrained(out, safe_serialization=True)
    progress.note(
        f"training starts from {recipe.start} ({found['task']}, {found['model']}), {'with its head' if kept else 'with a new head'}"
    )
    return {**found, "head": "kept" if kept else "new"}


def _general(task: Task) -> bool:
    """Whether a head of the task fits all of its data: it has no line a label, and no unit of a number."""
    return not task.labelled and "num_labels" not in task.config


def _body(folder: Path, trust_remote_code: bool) -> Any:
    """The model in `folder` without its head; a pooler that it has no weights for is left out."""
    import torch
    from transformers import AutoModel

    try:
        model, info = AutoModel.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=trust_remote_code, use_safetensors=True, output_loading_info=True
        )
    except ValueError as error:
        raise ModelError(f"the model in {folder} cannot be loaded without its head", details=str(error).splitlines()[:3]) from error
    absent = {name.partition(".")[0] for name in info["missing_keys"]}
    if not absent <= set(POOLERS):
        raise ModelError(f"{folder} lacks weights of its encoder: {', '.join(sorted(info['missing_keys'])[:3])}")
    for name in absent:
        setattr(model, name, None)
    for key in ("id2label", "label2id", "problem_type"):
        setattr(model.config, key, None)
    return model


def _link(source: str, target: str) -> None:
    """The same bytes under another name where the file system can, else a copy. A finished stage is replaced, never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
