"""other_tests: the model on test sets of another domain or language, beside its own test rows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from edgetune import data, methods, progress, tasks
from edgetune.artifact import Adapted, Artifact, Dataset, Merged
from edgetune.data import other_tests
from edgetune.data.other_tests import OtherTest
from edgetune.methods import coverage
from edgetune.methods.examples import encode, score
from edgetune.methods.model import load_merged, load_tokenizer, tokenizer_in
from edgetune.recipe import Recipe
from edgetune.runtime import quality
from edgetune.tasks import Task
from edgetune.tasks.paired import difference
from edgetune.workspace import write_json


def measure(recipe: Recipe, dataset: Dataset, model: Artifact, plain: Adapted | None, out: Path) -> dict[str, Any]:
    """Score `model` (adapted, or merged where it was trained elsewhere) on each of `data.other_tests`, and write what was found into `out`.

    Returns `sets`, by name: what `edgetune.data.other_tests` says of the rows, `metrics`, and what `edgetune.runtime.quality.facts` adds (the
    metric's 95 % interval), and `tokens`: whether the base knows their language (`edgetune.methods.coverage`). Where there is a `plain` model,
    which learned from the labelled rows alone, its `source_only` metrics and how much more the model has, by paired rows; and the same of the
    run's own rows, as `test`. Raises DataError for rows that cannot be used.
    """
    task, facts = tasks.get(recipe.task), model.facts
    labels, longest = list(facts["labels"]), facts["max_length"]
    tokenizer = tokenizer_in(model.path) if isinstance(model, Merged) else load_tokenizer(recipe)
    sets = other_tests.load(recipe, dataset.facts, data.rows(dataset.path, "train"))
    if plain:
        own = data.rows(dataset.path, "test")
        sets = {"test": OtherTest(own, {"file": "", "read": len(own), "rows": len(own), "dropped": [], "overlap": 0}), **sets}
    examples = {name: encode(task, one.rows, tokenizer, longest, labels, name) for name, one in sets.items()}
    loaded = _loaded(recipe, model, labels)
    scores = {name: score(task, loaded, some, tokenizer.pad_token_id, name) for name, some in examples.items()}
    found: dict[str, Any] = {}
    for name, one in sets.items():
        covered = coverage.measure(tokenizer, one.rows)
        coverage.tell(name, covered, facts.get("tokens"))
        metrics: Mapping[str, float] = task.module.metrics(scores[name], labels)
        found[name] = {**one.facts, "tokens": covered, "metrics": metrics, **quality.facts(scores[name], task, labels)}
        span = " (95 % {:.4f} .. {:.4f})".format(*found[name]["ci95"]) if found[name]["ci95"] else ""
        progress.note(f"{name}: {_words(task)} {metrics[task.metric]:.4f}{span} on {len(examples[name]):,} rows")
    if plain:
        loaded = load_merged(plain.path, recipe.task)
        for name, some in examples.items():
            before = score(task, loaded, some, tokenizer.pad_token_id, f"{name}, source-only")
            changed = difference(scores[name], before, task)
            found[name]["source_only"] = {"metrics": task.module.metrics(before, labels), "difference": changed}
            _compare(recipe.method, task, name, found[name]["source_only"])
    write_json(out / "other_tests.json", found)
    return {"sets": found}


def _compare(method: str, task: Task, name: str, plain: Mapping[str, Any]) -> None:
    """Say whether target texts helped."""
    value, (low, high) = plain["difference"]["value"], plain["difference"]["ci95"]
    said = f"{name}: {_words(task)} {value:+.4f} against source-only, {plain['metrics'][task.metric]:.4f} (95 % {low:+.4f} .. {high:+.4f})"
    if high < 0:
        progress.warn(f"{said}: {method} harmed")
    else:
        progress.note(f"{said}: " + (f"{method} helped" if low > 0 else "these rows do not tell them apart"))


def _words(task: Task) -> str:
    return task.metric.replace("_", " ")


def _loaded(recipe: Recipe, model: Artifact, labels: list[str]) -> PreTrainedModel:
    if isinstance(model, Merged):
        return load_merged(model.path, recipe.task)
    restored: PreTrainedModel = import_module(methods.get(recipe.method).module).restore(recipe, model.path, labels)
    return restored.eval()
