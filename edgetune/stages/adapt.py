"""adapt: change the base model's weights with the chosen method, and prove that what is on disk is what was measured."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import data, methods, progress, tasks
from edgetune.artifact import Adapted, Artifact, Dataset
from edgetune.data import augment, descriptions
from edgetune.data.earlier import MARK
from edgetune.errors import GateError
from edgetune.methods import before, continual, coverage, ewc, loop, memory, mixup, pace, search
from edgetune.methods.device import Device, choose
from edgetune.methods.examples import encode, score
from edgetune.methods.model import base_config, forward, load_merged, load_tokenizer, max_length
from edgetune.recipe import Recipe
from edgetune.runtime.quality import difference
from edgetune.tasks import Scores, Task, balance, said_beside
from edgetune.workspace import peak_rss_bytes

SCORE_TOLERANCE, LOGIT_TOLERANCE = 1e-6, 1e-4  # of the reloaded model, relative to the largest
MOST_EPOCHS = 20
AS_METHODS = {"frozen_logistic_regression": "linear-probe", "zero_shot": "zero-shot"}  # baselines that are methods too


def adapt(recipe: Recipe, dataset: Dataset, out: Path, augmented: Artifact | None = None, scratch: Adapted | None = None) -> dict[str, Any]:
    """Train, on the rows that were `augmented` too, and write the adapter or checkpoint into `out`. Returns metrics, history, baselines (what
    was trained from `scratch` among them) and how they were measured."""
    started = time.monotonic()
    task, method = tasks.get(recipe.task), methods.get(recipe.method)
    module = import_module(method.module)
    labels = list(dataset.facts["labels"])
    device = choose(recipe.adapt)
    tokenizer = load_tokenizer(recipe)
    pad_id, longest = tokenizer.pad_token_id, max_length(recipe, base_config(recipe), tokenizer)
    rows = {name: data.rows(dataset.path, name) for name in ("train", "validation", "test")}
    splits = {name: encode(task, some, tokenizer, longest, labels, name) for name, some in rows.items()}
    covered = {name: coverage.measure(tokenizer, rows[name]) for name in ("train", "test")}
    coverage.tell("train", covered["train"])
    made = data.rows(augmented.path, "augmented") if augmented else []
    learned = splits["train"] + (encode(task, made, tokenizer, longest, labels, "augmented") if made else [])
    taught = None
    if hasattr(module, "training"):
        of = tasks.of(task.name, dataset.facts["columns"])
        taught = module.training(methods.Lesson(recipe, of, labels, rows["train"] + made, learned, tokenizer, longest, device, out.parent))
    examples, unit = (taught.examples, taught.unit) if taught else (learned, "rows")
    settings = resolve(recipe, len(examples))
    _tell_memory(recipe, settings, dataset, device, labels)

    def attach(recipe: Recipe) -> PreTrainedModel:
        model: PreTrainedModel = module.attach(recipe, labels).to(device.torch)
        _set_dropout(model, task.dropout if recipe.adapt.dropout is None else recipe.adapt.dropout)
        return model

    model = attach(recipe)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    steps = (
        f"{settings.epochs} epochs of {len(examples)} {unit}, batches of {settings.batch_size}, learning rate {settings.learning_rate:g}"
        + (f", at most {settings.max_steps} steps" if settings.max_steps else "")
    )
    progress.note(steps if trained else f"nothing is trained by steps: the head is fitted to {len(examples)} {unit}")
    progress.note(f"training {trained:,} of {sum(w.numel() for w in model.parameters()):,} weights with {method.name}")
    learns = _learner(recipe, task, learned, model, labels)
    pairs = "text_pair" in dataset.facts["columns"]
    names = [] if pairs or task.name not in descriptions.TASKS else before.described(recipe, task, labels, tokenizer, longest)
    untrained = before.measure(recipe, learns, model, splits, pad_id, labels, device, out.parent, names)
    if scratch:
        untrained["from_scratch"] = scratch.facts["test"]
        progress.note(f"baseline from scratch: test {task.metric} {scratch.facts['test'][task.metric]:.4f}")
    learns = taught or learns

    def evaluate(model: PreTrainedModel) -> Mapping[str, float]:
        return task.module.metrics(learns.score(forward(model, device), splits["validation"], pad_id), labels)

    held = ewc.needed(recipe, task, tokenizer, longest, device) if recipe.continual.ewc else None
    sign, tie = 1 if task.higher_is_better else -1, task.tie
    problem = loop.Problem(
        learns,
        examples,
        pad_id,
        evaluate,
        lambda found: (sign * found[task.metric], -found[tie]),
        (task.metric, tie),
        _drawn(recipe, task, examples),
    )

    def train(model: PreTrainedModel, recipe: Recipe, scratch: Path, stop: loop.Stop = loop.never) -> loop.State:
        asked = replace(problem, task=ewc.Elastic(learns, model, *held, recipe.continual.ewc)) if held else problem
        numbers = resolve(recipe, len(examples))
        with _mixed(recipe, asked.task, model, pad_id) as what:
            how = pace.of(recipe, model, numbers.epochs)
            return loop.train(model, replace(asked, task=what), numbers, device, scratch, stop, how)

    def learn(model: PreTrainedModel, recipe: Recipe, scratch: Path) -> loop.State:
        state = train(model, recipe, scratch)
        if hasattr(learns, "finish"):
            learns.finish(model)
        model.eval()
        return state

    searched = {}
    if recipe.search.trials:
        del model
        tried = out.parent / "trials"
        found = search.search(recipe, asdict(settings), lambda trial, scratch, stop: train(attach(trial), trial, scratch, stop), tried)
        settings, model, searched = resolve(found.recipe, len(examples)), attach(found.recipe), {"search": found.facts}
        with progress.silent():  # it is trained already
            state = learn(model, found.recipe, found.scratch)
            if found.defaults not in (None, found.scratch):
                plain = attach(recipe)
                learn(plain, recipe, found.defaults)
                found.facts["test_of_defaults"] = task.module.metrics(score(task, plain, splits["test"], pad_id, "test"), labels)
                del plain
    else:
        state = learn(model, recipe, out.parent)
    scored = {name: score(task, model, splits[name], pad_id, name) for name in ("validation", "test")}
    facts = _facts(recipe, task, scored, labels, rows["test"]) | searched
    facts["beaten_by"] = _beaten_by(task, facts["test"], untrained, len(splits["test"]))
    if altered := augment.noisy_by(recipe):
        said = encode(task, augment.noisy(rows["test"], altered, task), tokenizer, longest, labels, "noisy test")
        facts["noisy_test"] = _noisy(task, altered, score(task, model, said, pad_id, "noisy test"), scored["test"], labels)
    if recipe.continual.run:
        facts["continual"] = _forgetting(recipe, task, dataset, scored["test"], splits["test"], tokenizer, longest, labels)
    probe = splits["validation"][: 2 * settings.batch_size]
    reported = task.module.score(forward(model), probe, pad_id)
    module.save(model, out)
    del model
    _same_after_reload(task, module.restore(recipe, out, labels).to(device.torch).eval(), probe, pad_id, reported)
    return facts | {
        "baselines": untrained,
        "history": state.history,
        "steps": state.step,
        "settings": asdict(settings),
        "max_length": longest,
        "tokens": covered["test"],
        "labels": labels,
        "inputs": list(tasks.inputs(task.module.collate(probe[:1], pad_id))),
        "trained_weights": trained,
        "device": device.name,
        "precision": "bf16" if device.bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def resolve(recipe: Recipe, rows: int) -> loop.Settings:
    """The recipe's numbers, with the method's defaults in place of zeros, for `rows` training rows (or pairs of them)."""
    task, method, keys = tasks.get(recipe.task), methods.get(recipe.method), recipe.adapt
    defaults = method.defaults[task.family]
    batch_size = keys.batch_size or defaults.batch_size
    return loop.Settings(
        epochs=keys.epochs or _epochs(defaults, math.ceil(rows / batch_size)),
        batch_size=batch_size,
        accumulation=keys.accumulation,
        learning_rate=keys.learning_rate or defaults.learning_rate,
        warmup=keys.warmup,
        weight_decay=keys.weight_decay,
        clip_norm=keys.clip_norm,
        label_smoothing=task.smoothing if keys.label_smoothing is None else keys.label_smoothing,
        early_stopping=keys.early_stopping,
        max_steps=keys.max_steps,
        checkpoint_every=keys.checkpoint_every,
        seed=recipe.seed,
    )


def _epochs(defaults: methods.Defaults, per_epoch: int) -> int:
    """The method's epochs; more where the rows are so few that they would give under `defaults.least_steps` steps."""
    return max(defaults.epochs, min(MOST_EPOCHS, math.ceil(defaults.least_steps / per_epoch)))


def _learner(recipe: Recipe, task: Task, examples: Sequence[Mapping[str, Any]], model: PreTrainedModel, labels: Sequence[str]) -> Any:
    """What learns in the place of the task's module, or that itself."""
    if hasattr(task.module, "training"):
        return task.module.training(examples, model)
    if recipe.adapt.class_weights == balance.NONE:
        return task.module
    balanced = balance.Balanced(task.module, examples, labels)
    least, most = (float(find([find(part) for part in balanced.weights])) for find in (np.min, np.max))
    progress.note(f"each class counts the same: a row weighs {least:.2g} to {most:.2g} (adapt.class_weights)")
    return balanced


def _drawn(recipe: Recipe, task: Task, examples: Sequence[Mapping[str, Any]]) -> Callable[[random.Random], list[int]] | None:
    """What draws the rows of an epoch, where they do not all come once."""
    if (temperature := recipe.adapt.sampling_temperature) == 1:
        return None
    return lambda chance: task.module.drawn(examples, temperature, chance)  # type: ignore[no-any-return]


def _facts(
    recipe: Recipe, task: Task, scored: Mapping[str, Scores], labels: Sequence[str], test_rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    facts: dict[str, Any] = {name: task.module.metrics(scores, labels) for name, scores in scored.items()}
    facts |= said_beside(task, scored["validation"], scored["test"], recipe)
    if hasattr(task.module, "report"):
        facts["per_label"] = task.module.report(scored["test"], labels)
    keep = np.array([i for i, row in enumerate(test_rows) if not row.get("overlap")], dtype=int)
    if task.family == "encoder" and len(keep) < len(test_rows) == len(scored["test"].value):
        facts["test_without_overlap"] = task.module.metrics(scored["test"].take(keep), labels)
    return facts


def _beaten_by(task: Task, adapted: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], rows: int) -> list[str]:
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


def _mixed(recipe: Recipe, learns: Any, model: PreTrainedModel, pad_id: int) -> Any:
    """A context in which `model` learns from rows that are mixed, where the recipe asks for it."""
    return mixup.mixed(learns, model, recipe.augment.mixup_alpha, pad_id) if "mixup" in recipe.augment.kinds else nullcontext(learns)


def _noisy(task: Task, kind: str, scores: Scores, clean: Scores, labels: Sequence[str]) -> dict[str, Any]:
    """Metrics on the test rows as `kind` alters them, and how much that is less than on them as they are."""
    found = {"kind": kind, "metrics": task.module.metrics(scores, labels), "difference": difference(scores, clean, task)}
    metric = task.metric
    progress.note(
        f"test rows with {kind}: {metric} {found['metrics'][metric]:.4f}, {task.module.metrics(clean, labels)[metric]:.4f} without"
    )
    return found


def _forgetting(
    recipe: Recipe,
    task: Task,
    dataset: Dataset,
    scores: Scores,
    examples: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    longest: int,
    labels: Sequence[str],
) -> dict[str, Any]:
    """Test metrics on the rows of the run that is continued, before and after with their difference, and on the new rows alone."""
    run = continual.learned(recipe)
    old = run.merged.facts["labels"]
    asked = encode(task, [row for row in data.rows(dataset.path, "test") if MARK in row], tokenizer, longest, old, "old test")
    before = score(task, load_merged(run.merged.path, recipe.task), asked, tokenizer.pad_token_id, "old test, before")
    after, new = scores.take(np.arange(len(asked))), scores.take(np.arange(len(asked), len(examples)))
    found = {
        "run": recipe.continual.run,
        "new_labels": list(labels[len(old) :]),
        "rows": {"old": len(asked), "new": len(examples) - len(asked)},
        "before": task.module.metrics(before, old),
        "after": task.module.metrics(after, labels),
        "new": task.module.metrics(new, labels),
        "difference": difference(after, before, task),
    }
    metric, changed = task.metric, found["difference"]
    said = f"{changed['value']:+.4f}, 95 % interval {changed['ci95'][0]:+.4f} .. {changed['ci95'][1]:+.4f}" if changed else "not comparable"
    progress.note(f"old test rows: {metric} {found['before'][metric]:.4f} before, {found['after'][metric]:.4f} after ({said})")
    progress.note(f"new test rows: {metric} {found['new'][metric]:.4f}; all together {task.module.metrics(scores, labels)[metric]:.4f}")
    return found


def _set_dropout(model: torch.nn.Module, probability: float) -> None:
    """One probability for every dropout of the base; an adapter keeps its own (lora.dropout)."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_" not in name:
            module.p = probability


def _tell_memory(recipe: Recipe, settings: loop.Settings, dataset: Dataset, device: Device, labels: Sequence[str]) -> None:
    config, meta = memory.outline(recipe, labels)
    tokens = memory.tokens(recipe, dataset.facts)  # a batch is as long as its longest row
    rows = -(-settings.batch_size // settings.accumulation)
    memory.tell(memory.estimate(recipe, config, meta, rows, tokens, device), device)


def _same_after_reload(task: Task, model: PreTrainedModel, probe: Sequence[Mapping[str, Any]], pad_id: int, reported: Scores) -> None:
    again: Scores = task.module.score(forward(model), probe, pad_id)
    for said, says, allowed in ((reported.value, again.value, SCORE_TOLERANCE), (reported.logits, again.logits, LOGIT_TOLERANCE)):
        if (
            said is not None
            and says is not None
            and not np.allclose(says, said, rtol=0, atol=allowed * max(1.0, float(np.abs(said).max())))
        ):
            raise GateError(f"the model reloaded from disk scores differently (by {float(np.abs(says - said).max()):.2g} on the same rows)")
