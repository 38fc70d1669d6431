"""What an adapted model is worth: on validation and test, on altered rows, beside its baselines, and on what an earlier run had learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from edgetune import methods, progress
from edgetune.data import augment
from edgetune.data.earlier import MARK
from edgetune.methods import continual
from edgetune.methods.examples import Given, encode, score
from edgetune.methods.model import load_merged
from edgetune.recipe import Recipe
from edgetune.tasks import Scores, Task, said_beside
from edgetune.tasks.paired import difference

AS_METHODS = {
    "frozen_logistic_regression": "linear-probe",
    "zero_shot": "zero-shot",
    "verbaliser": "verbaliser",
}  # baselines that are methods too


def measure(recipe: Recipe, given: Given, model: PreTrainedModel, baselines: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Metrics of `model` on validation and test, and what else the recipe and its rows ask for."""
    scored = {name: given.scored(model, given.splits[name], name) for name in ("validation", "test")}
    found = facts(recipe, given, scored)
    found["beaten_by"] = beaten_by(given.task, found["test"], baselines, len(given.splits["test"]))
    if altered := augment.noisy_by(recipe):
        found["noisy_test"] = _noisy(recipe, given, altered, model, scored["test"])
    if recipe.continual.run:
        found["continual"] = _forgetting(recipe, given, scored["test"])
    return found


def facts(recipe: Recipe, given: Given, scored: Mapping[str, Scores]) -> dict[str, Any]:
    """Metrics of each split, and of the labels of test."""
    task, labels, test_rows = given.task, given.labels, given.rows["test"]
    found: dict[str, Any] = {name: given.metrics(scores) for name, scores in scored.items()}
    found |= said_beside(task, scored["validation"], scored["test"], recipe)
    if hasattr(task.module, "report"):
        found["per_label"] = task.module.report(scored["test"], labels)
    keep = np.array([i for i, row in enumerate(test_rows) if not row.get("overlap")], dtype=int)
    if task.family == "encoder" and len(keep) < len(test_rows) == len(scored["test"].value):
        found["test_without_overlap"] = task.module.metrics(scored["test"].take(keep), labels)
    return found


def beaten_by(task: Task, adapted: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], rows: int) -> list[str]:
    """The baselines that do better on test than what was adapted, which is said: negative transfer is no success."""
    metric, sign = task.metric, 1 if task.higher_is_better else -1
    found = [name for name, one in baselines.items() if metric in one and sign * (one[metric] - adapted[metric]) > 0]
    for name in found:
        ships = AS_METHODS.get(name, "")
        progress.warn(
            f"adaptation did not pay: on {rows:,} test rows the baseline {name.replace('_', ' ')} has {metric} {baselines[name][metric]:.4f}, "
            f"the adapted model {adapted[metric]:.4f}" + (f"; --method {ships} ships it" if ships and methods.get(ships).fits(task) else "")
        )
    return found


def _noisy(recipe: Recipe, given: Given, kind: str, model: PreTrainedModel, clean: Scores) -> dict[str, Any]:
    """Metrics on the test rows as `kind` alters them, and how much that is less than on them as they are."""
    task, metric = given.task, given.task.metric
    scores = given.scored(model, given.encoded(augment.noisy(given.rows["test"], kind, recipe), "noisy test"), "noisy test")
    found: dict[str, Any] = {"kind": kind, "metrics": given.metrics(scores), "difference": difference(scores, clean, task)}
    progress.note(f"test rows with {kind}: {metric} {found['metrics'][metric]:.4f}, {given.metrics(clean)[metric]:.4f} without")
    return found


def _forgetting(recipe: Recipe, given: Given, scores: Scores) -> dict[str, Any]:
    """Test metrics on the rows of the run that is continued, before and after with their difference, and on the new rows alone."""
    run, task, count = continual.learned(recipe), given.task, len(given.splits["test"])
    old = run.merged.facts["labels"]
    asked = encode(task, [row for row in given.rows["test"] if MARK in row], given.tokenizer, given.longest, old, "old test")
    before = score(task, load_merged(run.merged.path, recipe.task), asked, given.pad_id, "old test, before")
    after, new = scores.take(np.arange(len(asked))), scores.take(np.arange(len(asked), count))
    found: dict[str, Any] = {
        "run": recipe.continual.run,
        "new_labels": given.labels[len(old) :],
        "rows": {"old": len(asked), "new": count - len(asked)},
        "before": task.module.metrics(before, old),
        "after": given.metrics(after),
        "new": given.metrics(new),
        "difference": difference(after, before, task),
    }
    metric, changed = task.metric, found["difference"]
    said = f"{changed['value']:+.4f}, 95 % interval {changed['ci95'][0]:+.4f} .. {changed['ci95'][1]:+.4f}" if changed else "not comparable"
    progress.note(f"old test rows: {metric} {found['before'][metric]:.4f} before, {found['after'][metric]:.4f} after ({said})")
    progress.note(f"new test rows: {metric} {found['new'][metric]:.4f}; all together {given.metrics(scores)[metric]:.4f}")
    return found
