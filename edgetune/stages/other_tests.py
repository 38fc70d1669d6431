"""other_tests: the model on test sets of another domain or language, beside its own test rows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from edgetune import data, methods, progress, tasks
from edgetune.artifact import Artifact, Dataset, Merged
from edgetune.data import other_tests
from edgetune.methods.examples import encode, score
from edgetune.methods.model import load_merged, load_tokenizer, tokenizer_in
from edgetune.recipe import Recipe
from edgetune.runtime import quality
from edgetune.workspace import write_json


def measure(recipe: Recipe, dataset: Dataset, model: Artifact, out: Path) -> dict[str, Any]:
    """Score `model` (adapted, or merged where it was trained elsewhere) on each of `data.other_tests`, and write what was found into `out`.

    Returns `sets`, by name: what `edgetune.data.other_tests` says of the rows, `metrics`, and what `edgetune.runtime.quality.facts` adds (the
    metric's 95 % interval). Raises DataError for rows that cannot be used.
    """
    task, facts = tasks.get(recipe.task), model.facts
    labels, longest = list(facts["labels"]), facts["max_length"]
    tokenizer = tokenizer_in(model.path) if isinstance(model, Merged) else load_tokenizer(recipe)
    sets = other_tests.load(recipe, dataset.facts, data.rows(dataset.path, "train"))
    loaded = _loaded(recipe, model, labels)
    found: dict[str, Any] = {}
    for name, one in sets.items():
        examples = encode(task, one.rows, tokenizer, longest, labels, name)
        scores = score(task, loaded, examples, tokenizer.pad_token_id, name)
        metrics: Mapping[str, float] = task.module.metrics(scores, labels)
        found[name] = {**one.facts, "metrics": metrics, **quality.facts(scores, task, labels)}
        low, high = found[name]["ci95"] or (metrics[task.metric],) * 2
        progress.note(
            f"{name}: {task.metric.replace('_', ' ')} {metrics[task.metric]:.4f} (95 % {low:.4f} .. {high:.4f}) on {len(examples):,} rows; "
            f"test {facts['test'][task.metric]:.4f}"
        )
    write_json(out / "other_tests.json", found)
    return {"sets": found}


def _loaded(recipe: Recipe, model: Artifact, labels: list[str]) -> PreTrainedModel:
    if isinstance(model, Merged):
        return load_merged(model.path, recipe.task)
    restored: PreTrainedModel = import_module(methods.get(recipe.method).module).restore(recipe, model.path, labels)
    return restored.eval()
