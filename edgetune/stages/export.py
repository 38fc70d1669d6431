"""export: the float graph, its smaller forms, the one that this target ships, and the bundle around it."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, GenerationConfig

from edgetune import data, progress, quant, tasks
from edgetune.artifact import Dataset, Graph, Merged
from edgetune.bundle import golden, write
from edgetune.compress import WHOLE
from edgetune.data import noise
from edgetune.data.columns import question
from edgetune.data.split import halves
from edgetune.errors import GateError, RecipeError
from edgetune.fit import candidates, first, search, sessions
from edgetune.fit.candidates import Candidate
from edgetune.graph import Plan, decoder, encoder, inputs
from edgetune.graph import export as graphs
from edgetune.methods.model import load_merged
from edgetune.profile import CPU, version
from edgetune.quant.calibration import ROWS
from edgetune.recipe import Recipe
from edgetune.runtime import available
from edgetune.runtime.measure import Shape, in_turns
from edgetune.runtime.verify import verify
from edgetune.target import Target, is_host
from edgetune.tasks import Encoded, Task, confidence

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


def graph(recipe: Recipe, merged: Merged, opset: int, ir: int, out: Path) -> dict[str, Any]:
    """Trace the merged model into `out / "model.onnx"` and prove it equal to PyTorch."""
    plan = _plan(recipe, merged)
    progress.note(f"tracing the float graph (opset {opset}, IR {ir})")
    facts = graphs.export(plan, out / "model.onnx", opset, ir)
    progress.note(f"the graph equals PyTorch to {facts['max_error']:.1g} on {facts['shapes']} shapes (exporter {facts['exporter']})")
    return {**facts, "size_bytes": (out / "model.onnx").stat().st_size, "generation": dict(plan.metadata)}


def taken(recipe: Recipe, merged: Merged, float_graph: Graph, ids: Any, sequence: int | None, out: Path) -> dict[str, Any]:
    """The float graph with inputs of the integer type `ids` and the shape [1, `sequence`] (None: any), proven equal to PyTorch again."""
    facts = inputs.convert(float_graph.path / "model.onnx", out / "model.onnx", ids=ids, sequence=sequence)
    error, shape = graphs.parity(_plan(recipe, merged), out / "model.onnx")
    if error > graphs.TOLERANCE:
        raise GateError(f"the graph with {ids} inputs differs from PyTorch by {error:.2g} at {shape}")
    size = (out / "model.onnx").stat().st_size
    return {**float_graph.facts, "inputs": facts, "max_error": error, "size_bytes": size}


def _plan(recipe: Recipe, merged: Merged) -> Plan:
    model = load_merged(merged.path, recipe.task)
    model.set_attn_implementation("eager")  # opset <= 22 says it without guards against NaN
    encodes = tasks.get(recipe.task).family == "encoder"
    return encoder.plan(model, merged.facts["max_length"]) if encodes else decoder.plan(model)


def longest(target: Target, merged: Merged) -> int:
    """Tokens that the bundle reads: of the training, or fewer where the target's graph is fixed to fewer."""
    return int(min(merged.facts["max_length"], target.runtime.sequence or math.inf))


def bundle(recipe: Recipe, target: Target, dataset: Dataset, forms: Sequence[Form], work: Path, out: Path) -> dict[str, Any]:
    """Choose this target's candidate, write its bundle into `out` and verify it in a fresh process.

    `forms`: the adapted model, then smaller ones. `work` keeps candidates and their scores by content, so that targets share them. Raises
    GateError when every candidate is refused, when a budget is broken, or when the bundle does not reproduce its golden vectors.
    """
    task = tasks.get(recipe.task)
    schemes = _schemes(recipe, target, task)
    progress.note(f"{target.name}: {target.title}; trying {', '.join(schemes)}")
    choice = (_choose if len(forms) == 1 else _search)(recipe, target, task, dataset, forms, schemes, work)
    gc.collect()
    chosen, form = choice.chosen, next(form for form in forms if form.name == choice.chosen.form)
    labels, length = list(form.model.facts["labels"]), longest(target, form.model)
    tokenizer = AutoTokenizer.from_pretrained(form.model.path)
    facts = _facts(task, choice, labels)
    sure = confidence.fit(chosen.validation, recipe.export.reject_below) if task.family == "encoder" else None
    if sure is not None:
        facts["confidence"] = {**confidence.as_facts(sure), "test": confidence.measure(chosen.test, sure)}
    write.write(
        write.Spec(
            target=target,
            task=task,
            scheme=chosen.scheme.name,
            graph=chosen.graph,
            suffix=chosen.scheme.suffix,
            merged=form.model.path,
            labels=labels,
            max_length=length,
            confidence=confidence.as_facts(sure) if sure else None,
            tolerance=chosen.scheme.tolerance,
            lengths=choice.lengths,
            golden=_golden_texts(recipe, dataset, tokenizer, length),
            metrics={key: facts[key] for key in ("metric", "quality", "baseline", "drop", "rows", "flips")},
            onnxruntime_min=max(chosen.scheme.onnxruntime_min, target.runtime.onnxruntime_min, key=version),
            generation=_generation(tokenizer, form.model.path, form.graph) if task.family == "decoder" else None,
            card=_card(recipe, dataset, forms[0].model, facts),
        ),
        out,
    )
    if recipe.export.fit and is_host(target):
        facts["sessions"] = sessions.tune(out, target.session, target.cores or target.session.threads, out.parent)
    facts["golden"] = _verified(target, out)
    facts |= _measured(recipe, target, out)
    progress.note(
        f"{target.name}: {'' if form.name == WHOLE else f'{form.name} '}{chosen.scheme.name}, {chosen.size_bytes / MB:.1f} MB; "
        f"{task.metric} {facts['baseline']:.4f} -> {facts['quality']:.4f} on test"
    )
    return facts


def _choose(
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
        _allowed(recipe, target, task),
        recipe.export.strict,
        _size(recipe, target),
        _calibration(recipe, dataset, encode) if any(quant.get(name).static for name in schemes) else (),
    )


def _verified(target: Target, out: Path) -> dict[str, Any]:
    """What `verify` found, on the target's provider where this machine has it, else on the CPU: the same graph, not the same hardware."""
    provider = target.runtime.provider if available(target.runtime.provider) else CPU
    if provider != target.runtime.provider:
        progress.warn(f"{target.name}: {target.runtime.provider} is not here; the golden vectors are checked on {CPU}")
    return {key: value for key, value in verify(out, provider=provider).items() if key != "bundle"}  # its folder moves afterwards


def _calibration(recipe: Recipe, dataset: Dataset, encode: Callable[..., Encoded]) -> list[dict[str, Any]]:
    """Training rows, drawn by the seed: not those that the gate decides on."""
    rows = data.rows(dataset.path, "train")
    drawn = np.random.default_rng(recipe.seed).permutation(len(rows))[:ROWS]
    return encode([rows[i] for i in drawn]).examples


def _facts(task: Task, choice: Choice, labels: list[str]) -> dict[str, Any]:
    base, chosen = choice.base, choice.chosen
    before, after = (task.module.metrics(c.test, labels) for c in (base, chosen))
    metric = task.metric
    drop = before[metric] - after[metric]
    known = base.test.weight > 0
    facts = {
        "form": chosen.form,
        "scheme": chosen.scheme.name,
        "size_bytes": chosen.size_bytes,
        "metric": metric,
        "quality": after[metric],
        "baseline": before[metric],
        "drop": drop,
        "rows": int(known.sum()),
        "proven": chosen.verdict.proven if chosen.verdict else True,
        "verdict": chosen.reason,
        "test": after,
        "test_float": before,
        "flips": {},
        "candidates": choice.tried,
    }
    if task.family == "encoder":
        worse, better = (int((a.test.value[known] > b.test.value[known]).sum()) for a, b in ((base, chosen), (chosen, base)))
        facts["flips"] = {"right_to_wrong": worse, "wrong_to_right": better}
    if (drop > 0) == task.higher_is_better and drop != 0:
        progress.warn(f"{metric} on test is {abs(drop):.4f} worse than the float model's ({before[metric]:.4f} -> {after[metric]:.4f})")
    return facts


def _schemes(recipe: Recipe, target: Target, task: Task) -> tuple[str, ...]:
    schemes = recipe.export.schemes or target.schemes(task.family)
    for name in schemes:
        if task.family not in quant.get(name).families:
            fitting = [row.name for row in quant.SCHEMES.values() if task.family in row.families]
            raise RecipeError(f"scheme {name} is not for {task.name}", mend=f"choose among: {', '.join(fitting)}")
    return schemes


def _allowed(recipe: Recipe, target: Target, task: Task) -> float:
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


def _measured(recipe: Recipe, target: Target, out: Path) -> dict[str, Any]:
    """Peak memory and, on the target's own hardware, latency of a fresh process; a broken budget is a GateError."""
    memory = recipe.export.max_memory_mb or target.budget.memory_mb
    latency = recipe.export.max_latency_ms
    here = is_host(target)
    if not memory and not latency:
        return {"budgets": {}}
    budgets: dict[str, Any] = {}
    if not available(target.runtime.provider):
        progress.warn(f"{target.name}: budgets are unmeasured, {target.runtime.provider} is not here; run `run.py --benchmark` there")
        allowed = {"memory_mb": memory, "latency_ms": latency}
        return {"budgets": {name: {"allowed": value, "measured": "unmeasured"} for name, value in allowed.items() if value}}
    found = in_turns([out], shapes=[Shape()])[0]
    if memory:
        budgets["memory_mb"] = {"allowed": memory, "measured": (found.peak_rss_bytes or 0) / MB}
    if latency:
        budgets["latency_ms"] = {"allowed": latency, "measured": found.latency[0].p50_ms if here else "unmeasured"}
        if not here:
            progress.warn(f"max_latency_ms is unmeasured: this machine is not {target.name}; run `run.py --benchmark` there")
    for name, budget in budgets.items():
        if budget["measured"] != "unmeasured" and budget["measured"] > budget["allowed"]:
            raise GateError(
                f"{target.name}: {name} is {budget['measured']:.2f}, the budget is {budget['allowed']:g}",
                mend=f"raise the budget, or choose another scheme ({name})",
            )
    return {"budgets": budgets}


def _generation(tokenizer: Any, merged: Path, float_graph: Graph) -> dict[str, Any]:
    from edgetune.tasks.text_generation import prompt_parts, stop_ids

    prefix, suffix = prompt_parts(tokenizer)
    stops = stop_ids(tokenizer, GenerationConfig.from_pretrained(merged))
    return {"prefix": prefix, "suffix": suffix, "stop_ids": list(stops), "max_new_tokens": 128, **float_graph.facts["generation"]}


def _golden_texts(recipe: Recipe, dataset: Dataset, tokenizer: Any, longest: int) -> list[str]:
    if recipe.export.golden == "synthetic":
        return golden.synthetic(tokenizer, max_length=longest, seed=recipe.seed)
    progress.note("golden vectors: rows of your validation data ship in the bundle, as asked (export.golden)")
    return [question(row) for row in data.rows(dataset.path, "validation")[:128]]


def _lengths(examples: Sequence[Mapping[str, Any]]) -> list[int]:
    """Token counts of at most 64 test rows, evenly spread over the distribution: what "real lengths" means in a benchmark."""
    every = np.sort([len(example["input_ids"]) for example in examples])
    picked = np.linspace(0, len(every) - 1, min(LENGTHS, len(every))).round().astype(int)
    return [int(every[i]) for i in picked]


def _card(recipe: Recipe, dataset: Dataset, merged: Merged, facts: Mapping[str, Any]) -> write.Card:
    from edgetune import source

    base = merged.facts.get("base_model", recipe.model)  # of an adapter that was trained elsewhere
    where = source.resolve(base, recipe.trust_remote_code)
    return write.Card(
        base_model=base,
        base_folder=where.folder,
        data=Path(recipe.data.path).name or recipe.data.path,
        data_licence=recipe.data.licence,
        method=recipe.method,
        rows=dict(dataset.facts["rows"]),
        notes=[facts["verdict"]],
    )
