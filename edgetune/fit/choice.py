"""The choice of what a target ships: which schemes and forms are tried, on which rows, against which budgets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from edgetune import data, progress, quant, tasks
from edgetune.artifact import Dataset, Graph, Merged
from edgetune.data import noise
from edgetune.data.columns import question
from edgetune.data.split import halves
from edgetune.errors import GateError, RecipeError
from edgetune.fit import candidates, first, search
from edgetune.fit.candidates import Candidate
from edgetune.quant.calibration import ROWS
from edgetune.recipe import Recipe
from edgetune.target import Target, is_host
from edgetune.tasks import Encoded, Task

MB = 1e6
LENGTHS = 64
NEAREST = 12  # candidates that an error lists


@dataclass(frozen=True)
class Form:
    """The adapted model, or a smaller one made of it, and its float graph."""

    name: str
    model: Merged
    graph: Graph


@dataclass(frozen=True)
class Choice:
    """The float model and the candidate that ships, every candidate as a row of the report, and the token counts of real rows."""

    base: Candidate
    chosen: Candidate
    tried: list[dict[str, Any]]
    lengths: list[int]


def longest(target: Target, merged: Merged) -> int:
    """Tokens that the bundle reads: of the training, or fewer where the target's graph is fixed to fewer."""
    return int(min(merged.facts["max_length"], target.runtime.sequence or math.inf))


def choose(recipe: Recipe, target: Target, dataset: Dataset, forms: Sequence[Form], work: Path) -> Choice:
    """The candidate that `target` ships: with one form the first scheme that keeps its promise, with several the best by search.

    `forms`: the adapted model, then smaller ones. `work` keeps candidates and their scores by content, so that targets share them. Raises
    RecipeError for a scheme that is not for the task, GateError when every candidate is refused.
    """
    task = tasks.get(recipe.task)
    schemes = _schemes(recipe, target, task)
    progress.note(f"{target.name}: {target.title}; trying {', '.join(schemes)}")
    return (_first if len(forms) == 1 else _search)(recipe, target, task, dataset, forms, schemes, work)


def _first(
    recipe: Recipe, target: Target, task: Task, dataset: Dataset, forms: Sequence[Form], schemes: Sequence[str], work: Path
) -> Choice:
    """The first scheme, in the target's order, that keeps the promise."""
    form = forms[0]
    asked = _asked(recipe, target, task, dataset, form, schemes, {name: data.rows(dataset.path, name) for name in ("validation", "test")})
    tried = first.choose(form.graph.path / "model.onnx", schemes, asked, work)
    chosen = next((c for c in tried if c.chosen), None)
    if chosen is None:
        raise GateError(
            f"{target.name}: no candidate keeps its promise",
            details=[f"{c.scheme.name} ({c.size_bytes / MB:.1f} MB): {c.reason}" for c in tried],
            mend=_relax(task, tried, recipe.export.strict),
        )
    base = next(c for c in tried if c.scheme.name == "fp32")
    return Choice(base, chosen, [candidates.as_facts(task, c, asked.labels) for c in tried], _lengths(asked.examples["test"]))


def _search(
    recipe: Recipe, target: Target, task: Task, dataset: Dataset, forms: Sequence[Form], schemes: Sequence[str], work: Path
) -> Choice:
    """The candidate of least median time x size within the budgets, over all forms."""
    validation = data.rows(dataset.path, "validation")
    first, second = halves(validation, recipe.seed)
    texts = [question(row) for row in data.rows(dataset.path, "train")]
    rows = {
        "probe": first[: search.PROBE],
        "choose": first,
        "prove": second,
        "typos": [row for seed in range(2) for row in noise.typos(validation, recipe.seed + seed)],
        "unseen": noise.unseen(validation, texts, AutoTokenizer.from_pretrained(forms[0].model.path)),
        "test": data.rows(dataset.path, "test"),
    }
    rows = {name: part for name, part in rows.items() if part}
    wanted = [
        search.Form(form.name, form.graph.path / "model.onnx", _asked(recipe, target, task, dataset, form, schemes, rows)) for form in forms
    ]
    lengths = _lengths(wanted[0].asked.examples["test"])
    base, found = search.search(
        wanted, schemes, work, lengths, here=is_host(target), latency_ms=recipe.export.max_latency_ms, fit=recipe.export.fit
    )
    chosen = next((f.candidate for f in found if f.candidate.chosen), None)
    if chosen is None:
        raise GateError(
            f"{target.name}: no candidate fits the budgets",
            details=search.nearest(found)[:NEAREST],
            mend=search.relax(found, wanted[0].asked),
        )
    return Choice(base, chosen, [search.as_facts(f, wanted[0].asked) for f in found], lengths)


def _asked(
    recipe: Recipe,
    target: Target,
    task: Task,
    dataset: Dataset,
    form: Form,
    schemes: Sequence[str],
    rows: Mapping[str, Sequence[Mapping[str, Any]]],
) -> candidates.Asked:
    tokenizer = AutoTokenizer.from_pretrained(form.model.path)
    labels = list(form.model.facts["labels"])
    encode = partial(task.module.encode, tokenizer=tokenizer, max_length=longest(target, form.model), labels=labels)
    return candidates.Asked(
        task,
        {name: encode(part).examples for name, part in rows.items()},
        labels,
        tokenizer.pad_token_id or 0,
        target,
        allowed(recipe, target, task),
        recipe.export.strict,
        _size(recipe, target),
        _calibration(recipe, dataset, encode) if any(quant.get(name).static for name in schemes) else (),
    )


def _calibration(recipe: Recipe, dataset: Dataset, encode: Callable[..., Encoded]) -> list[dict[str, Any]]:
    """Training rows, drawn by the seed: not those that the gate decides on."""
    rows = data.rows(dataset.path, "train")
    drawn = np.random.default_rng(recipe.seed).permutation(len(rows))[:ROWS]
    return encode([rows[i] for i in drawn]).examples


def _schemes(recipe: Recipe, target: Target, task: Task) -> tuple[str, ...]:
    schemes = recipe.export.schemes or target.schemes(task.family)
    for name in schemes:
        if task.family not in quant.get(name).families:
            fitting = [row.name for row in quant.SCHEMES.values() if task.family in row.families]
            raise RecipeError(f"scheme {name} is not for {task.name}", mend=f"choose among: {', '.join(fitting)}")
    return schemes


def allowed(recipe: Recipe, target: Target, task: Task) -> float:
    """What the metric may lose: absolute, or relative for a perplexity."""
    asked = recipe.export.max_drop if task.higher_is_better else recipe.export.max_perplexity_increase
    given = target.budget.max_drop if task.higher_is_better else target.budget.max_perplexity_increase
    return given if asked is None else asked


def _size(recipe: Recipe, target: Target) -> float | None:
    limit = recipe.export.max_size_mb or target.budget.size_mb
    return limit * MB if limit else None


def _relax(task: Task, tried: list[Candidate], strict: bool) -> str:
    """The least that the user would have to allow for one of the candidates to pass."""
    fits = [(c.verdict.bound if strict else c.verdict.loss, c.scheme.name) for c in tried if c.verdict]
    if not fits:
        return f"--max-size {_up(min(c.size_bytes for c in tried if c.too_large) / MB):.4f} would let the smallest in"
    lost, name = min(fits, key=lambda fit: fit[0])
    key = "--max-drop" if task.higher_is_better else "--max-perplexity-rise"
    return f"the nearest is {name}: {key} {_up(lost):.4f} would let it pass"


def _up(value: float) -> float:
    """Rounded up to four decimals."""
    return math.ceil(value * 1e4) / 1e4


def _lengths(examples: Sequence[Mapping[str, Any]]) -> list[int]:
    """Token counts of at most 64 test rows, evenly spread over the distribution: what "real lengths" means in a benchmark."""
    every = np.sort([len(example["input_ids"]) for example in examples])
    picked = np.linspace(0, len(every) - 1, min(LENGTHS, len(every))).round().astype(int)
    return [int(every[i]) for i in picked]
