"""What a run's test rows score before it learns: the untrained model, and the baselines of its task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from edgetune import progress, tasks
from edgetune.data import descriptions
from edgetune.methods import PATTERNS, baselines
from edgetune.methods.device import Device
from edgetune.methods.model import forward
from edgetune.recipe import Recipe
from edgetune.tasks import Task
from edgetune.workspace import write_json


def described(recipe: Recipe, task: Task, labels: Sequence[str], tokenizer: Any, longest: int) -> list[dict[str, Any]]:
    """What the labels mean, as examples."""
    rows = descriptions.rows(recipe, labels)
    examples: list[dict[str, Any]] = task.module.encode(rows, tokenizer, max_length=longest, labels=labels).examples
    return examples


def measure(
    recipe: Recipe,
    learns: Any,
    model: PreTrainedModel,
    splits: Mapping[str, list[dict[str, Any]]],
    pad_id: int,
    labels: Sequence[str],
    device: Device,
    scratch: Path,
    names: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Test metrics of the untrained model, of the task's simple baseline and of the labels' `names`; kept in `scratch` for a resumed run."""
    if not recipe.adapt.baselines:
        return {}
    kept = scratch / "baselines.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found
    model.eval()
    task, found = tasks.get(recipe.task), {}
    if recipe.method != "verbaliser" and not recipe.continual.run:  # that is all it is; and what is continued is measured by the stage
        name = "verbaliser" if recipe.method in PATTERNS else "untrained"
        found[name] = task.module.metrics(learns.score(forward(model, device), splits["test"], pad_id), labels)
    if simple := baselines.BASELINES.get(task.name):
        scores = simple(model, splits["train"], splits["test"], pad_id, len(labels), device)
        name = simple.__name__ if simple in baselines.WITHOUT_MODEL else f"frozen_{simple.__name__}"
        found[name] = task.module.metrics(scores, labels)
    if names:
        found["zero_shot"] = task.module.metrics(baselines.zero_shot(model, names, splits["test"], pad_id, device), labels)
    for name, metrics in found.items():
        progress.note(f"baseline {name.replace('_', ' ')}: test {task.metric} {metrics[task.metric]:.4f}")
    write_json(kept, found)
    return found
