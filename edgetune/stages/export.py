"""export: the float graph, its smaller forms, the one that this target ships, and the bundle around it."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, GenerationConfig

from edgetune import data, progress, tasks
from edgetune.artifact import Dataset, Graph, Merged
from edgetune.bundle import golden, write
from edgetune.compress import WHOLE
from edgetune.data import columns
from edgetune.errors import GateError
from edgetune.fit import choice, sessions
from edgetune.fit.choice import Choice, Form
from edgetune.graph import DECODER, Plan, decoder, encoder, files, inputs, seq2seq
from edgetune.graph import export as graphs
from edgetune.methods.device import keep_freed_memory
from edgetune.methods.model import load_merged
from edgetune.profile import CPU, version
from edgetune.recipe import Recipe
from edgetune.runtime import available, measurable
from edgetune.runtime.measure import Shape, in_turns
from edgetune.runtime.verify import verify
from edgetune.target import Target, is_host
from edgetune.tasks import Task, flips, generated, said_beside
from edgetune.tasks.text2text_generation import search_settings

MB = 1e6
MODEL = "model.onnx"
LEAST_NEW_TOKENS = 128  # that an app lets a model write at most


def graph(recipe: Recipe, merged: Merged, opset: int, ir: int, out: Path) -> dict[str, Any]:
    """Trace the merged model into `out / MODEL` and prove it equal to PyTorch."""
    keep_freed_memory()
    plans = _plans(recipe, merged)
    progress.note(f"tracing the float graph (opset {opset}, IR {ir})")
    facts, *decoder = (graphs.export(plan, out / name, opset, ir) for plan, name in zip(plans, (MODEL, DECODER), strict=False))
    for found in (facts, *decoder):
        progress.note(f"the graph equals PyTorch to {found['max_error']:.1g} on {found['shapes']} shapes (exporter {found['exporter']})")
    if decoder:
        facts |= {"max_error": max(facts["max_error"], decoder[0]["max_error"]), "decoder": decoder[0]}
    size = sum(path.stat().st_size for path in files(out / MODEL))
    return {**facts, "size_bytes": size, "generation": dict(plans[-1].metadata)}


def taken(recipe: Recipe, merged: Merged, float_graph: Graph, ids: Any, sequence: int | None, out: Path) -> dict[str, Any]:
    """The float graph with inputs of the integer type `ids` and the shape [1, `sequence`] (None: any), proven equal to PyTorch again."""
    facts = inputs.convert(float_graph.path / MODEL, out / MODEL, ids=ids, sequence=sequence)
    error, shape = graphs.parity(_plans(recipe, merged)[0], out / MODEL)
    if error > graphs.TOLERANCE:
        raise GateError(f"the graph with {ids} inputs differs from PyTorch by {error:.2g} at {shape}")
    size = (out / MODEL).stat().st_size
    return {**float_graph.facts, "inputs": facts, "max_error": error, "size_bytes": size}


def _plans(recipe: Recipe, merged: Merged) -> tuple[Plan, ...]:
    model = load_merged(merged.path, recipe.task)
    model.set_attn_implementation("eager")  # opset <= 22 says it without guards against NaN
    task = tasks.get(recipe.task)
    if task.family == "decoder":
        return (decoder.plan(model),)
    if task.family == "seq2seq":
        return seq2seq.plans(model)
    return (encoder.plan(model, merged.facts["max_length"], task.outputs, pairs="token_type_ids" in merged.facts.get("inputs", ())),)


def bundle(recipe: Recipe, target: Target, dataset: Dataset, forms: Sequence[Form], work: Path, out: Path) -> dict[str, Any]:
    """Choose this target's candidate, write its bundle into `out` and verify it in a fresh process.

    `forms`: the adapted model, then smaller ones. `work` keeps candidates and their scores by content, so that targets share them. Raises
    GateError when every candidate is refused, when a budget is broken, or when the bundle does not reproduce its golden vectors.
    """
    task = tasks.of(recipe.task, dataset.facts["columns"])
    made = choice.choose(recipe, target, dataset, forms, work)
    gc.collect()
    chosen, form = made.chosen, next(form for form in forms if form.name == made.chosen.form)
    labels, length = list(form.model.facts["labels"]), choice.longest(target, form.model)
    tokenizer = AutoTokenizer.from_pretrained(form.model.path)
    facts = _facts(task, made, labels)
    beside = said_beside(task, chosen.validation, chosen.test, recipe)
    facts |= beside
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
            confidence={name: fact for name, fact in beside["confidence"].items() if name != "test"} if beside else None,
            tolerance=chosen.scheme.tolerance,
            elsewhere=chosen.scheme.elsewhere,
            lengths=made.lengths,
            golden=_golden_items(recipe, task, dataset, tokenizer, length),
            metrics={key: facts[key] for key in ("metric", "quality", "baseline", "drop", "rows", "flips")},
            onnxruntime_min=max(chosen.scheme.onnxruntime_min, target.runtime.onnxruntime_min, key=version),
            generation=None if task.family == "encoder" else _generation(recipe, task, tokenizer, form, data.rows(dataset.path, "train")),
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


def _verified(target: Target, out: Path) -> dict[str, Any]:
    """What `verify` found, on the target's provider where this machine has it, else on the CPU: the same graph, not the same hardware."""
    provider = target.runtime.provider if available(target.runtime.provider) else CPU
    if provider != target.runtime.provider:
        progress.warn(f"{target.name}: {target.runtime.provider} is not here; the golden vectors are checked on {CPU}")
    return {key: value for key, value in verify(out, provider=provider).items() if key != "bundle"}  # its folder moves afterwards


def _facts(task: Task, made: Choice, labels: list[str]) -> dict[str, Any]:
    base, chosen = made.base, made.chosen
    before, after = (task.module.metrics(c.test, labels) for c in (base, chosen))
    metric = task.metric
    drop = before[metric] - after[metric]
    facts = {
        "form": chosen.form,
        "scheme": chosen.scheme.name,
        "size_bytes": chosen.size_bytes,
        "metric": metric,
        "quality": after[metric],
        "baseline": before[metric],
        "drop": drop,
        "rows": int(np.count_nonzero(base.test.weight)),
        "proven": chosen.verdict.proven if chosen.verdict else True,
        "verdict": chosen.reason,
        "test": after,
        "test_float": before,
        "flips": flips(base.test, chosen.test),
        "candidates": made.tried,
    }
    if (drop > 0) == task.higher_is_better and drop != 0:
        progress.warn(f"{metric} on test is {abs(drop):.4f} worse than the float model's ({before[metric]:.4f} -> {after[metric]:.4f})")
    return facts


def _measured(recipe: Recipe, target: Target, out: Path) -> dict[str, Any]:
    """Peak memory and, on the target's own hardware, latency of a fresh process; a broken budget is a GateError."""
    memory = recipe.export.max_memory_mb or target.budget.memory_mb
    latency = recipe.export.max_latency_ms
    here = is_host(target)
    if not memory and not latency:
        return {"budgets": {}}
    budgets: dict[str, Any] = {}
    if not measurable(target.runtime.provider):
        progress.warn(
            f"{target.name}: budgets are unmeasured, this machine has no {target.runtime.provider}; run `run.py --benchmark` there"
        )
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


def _generation(recipe: Recipe, task: Task, tokenizer: Any, form: Form, train: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    config = GenerationConfig.from_pretrained(form.model.path)
    most = max(LEAST_NEW_TOKENS, generated.longest([task.module.answer(row) for row in train], tokenizer))
    made = _searched(tokenizer, config, most) if task.family == "seq2seq" else _prompted(tokenizer, config, most, train)
    return {**made, "stop": list(recipe.export.stop), **form.graph.facts["generation"]}


def _searched(tokenizer: Any, config: GenerationConfig, most: int) -> dict[str, Any]:
    settings, ignored = search_settings(tokenizer, config, most)
    if ignored:
        progress.warn(f"generation_config.json asks for {', '.join(ignored)}, which run.py does not do")
    return settings


def _prompted(tokenizer: Any, config: GenerationConfig, most: int, train: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    from edgetune.tasks.text_generation import chat_parts, common_system, prompt_parts, stop_ids

    system = common_system(train)
    if system:
        progress.note(f"the system message that every row of train has ships in the prompt, {len(system)} characters (generation.system)")
    prefix, suffix = prompt_parts(tokenizer, system)
    chat = chat_parts(tokenizer)
    if chat is None:
        progress.note("the chat template cannot be rebuilt for several turns: the bundle takes single texts, no conversations")
    stops = stop_ids(tokenizer, config)
    return {**{"prefix": prefix, "suffix": suffix, "system": system, "chat": chat}, "stop_ids": list(stops), "max_new_tokens": most}


def _golden_items(recipe: Recipe, task: Task, dataset: Dataset, tokenizer: Any, longest: int) -> Sequence[str | Mapping[str, str]]:
    if recipe.export.golden == "synthetic":
        return golden.items(golden.synthetic(tokenizer, max_length=longest, seed=recipe.seed), task.asks, task.markers)
    progress.note("golden vectors: rows of your validation data ship in the bundle, as asked (export.golden)")
    return [columns.item(row, task.asks) for row in data.rows(dataset.path, "validation")[:128]]


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
        notes=[facts["verdict"], *([f"training started from another run's model, {Path(recipe.start).name}"] if recipe.start else [])],
    )
