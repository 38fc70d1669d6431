"""adapt: change the base model's weights with the chosen method, and prove that what is on disk is what was measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import data, methods, progress, tasks
from edgetune.artifact import Adapted, Artifact, Dataset
from edgetune.data import descriptions
from edgetune.errors import GateError
from edgetune.methods import before, coverage, ewc, loop, memory, search, teachers
from edgetune.methods.examples import Given
from edgetune.methods.examples import given as given_by
from edgetune.methods.learning import Learning, attach, learner, problem
from edgetune.methods.measured import measure
from edgetune.methods.model import forward
from edgetune.methods.settings import resolve
from edgetune.recipe import Recipe
from edgetune.tasks import Scores
from edgetune.workspace import peak_rss_bytes

SCORE_TOLERANCE, LOGIT_TOLERANCE = 1e-6, 1e-4  # of the reloaded model, relative to the largest


def adapt(recipe: Recipe, dataset: Dataset, out: Path, augmented: Artifact | None = None, scratch: Adapted | None = None) -> dict[str, Any]:
    """Train, on the rows that were `augmented` too, and write the adapter or checkpoint into `out`. Returns metrics, history, baselines (what
    was trained from `scratch` among them) and how they were measured."""
    started = time.monotonic()
    method = methods.get(recipe.method)
    module, given = import_module(method.module), given_by(recipe, dataset)
    task, device, labels = given.task, given.device, given.labels
    if recipe.method == "distillation":
        teachers.separate(teachers.named(recipe), given.rows)
    covered = {name: coverage.measure(given.tokenizer, given.rows[name]) for name in ("train", "test")}
    coverage.tell("train", covered["train"])
    made = data.rows(augmented.path, "augmented") if augmented else []
    learned = given.splits["train"] + (given.encoded(made, "augmented") if made else [])
    taught = None
    if hasattr(module, "training"):
        of, rows = tasks.of(task.name, dataset.facts["columns"]), [*given.rows["train"], *made]
        taught = module.training(methods.Lesson(recipe, of, labels, rows, learned, given.tokenizer, given.longest, device, out.parent))
    examples, unit = (taught.examples, taught.unit) if taught else (learned, "rows")
    settings = resolve(recipe, len(examples))
    _tell_memory(recipe, settings, dataset, given)

    model = attach(recipe, given, module)
    trained = _tell_steps(model, settings, len(examples), unit, method.name)
    learns = learner(recipe, task, learned, model, labels)
    baselines = _baselines(recipe, given, dataset, learns, model, out.parent)
    if scratch:
        baselines["from_scratch"] = scratch.facts["test"]
        progress.note(f"baseline from scratch: test {task.metric} {scratch.facts['test'][task.metric]:.4f}")
    held = ewc.needed(recipe, task, given.tokenizer, given.longest, device) if recipe.continual.ewc else None
    learning = Learning(given, module, problem(recipe, given, taught or learns, examples), held)

    if recipe.search.trials:
        del model
        model, state, recipe_found, searched = _searched(recipe, learning, settings, out)
        settings = resolve(recipe_found, len(examples))
    else:
        state, searched = learning.learn(model, recipe, out.parent), {}
    facts = measure(recipe, given, model, baselines) | searched
    probe = given.splits["validation"][: 2 * settings.batch_size]
    reported = task.module.score(forward(model), probe, given.pad_id)
    module.save(model, out)
    del model
    _same_after_reload(given, module.restore(recipe, out, labels).to(device.torch).eval(), probe, reported)
    return facts | {
        "baselines": baselines,
        "history": state.history,
        "steps": state.step,
        "settings": asdict(settings),
        "max_length": given.longest,
        "tokens": covered["test"],
        "labels": labels,
        "inputs": list(tasks.inputs(task.module.collate(probe[:1], given.pad_id))),
        "trained_weights": trained,
        "device": device.name,
        "precision": "bf16" if device.bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - started, 1),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _searched(
    recipe: Recipe, learning: Learning, settings: loop.Settings, out: Path
) -> tuple[PreTrainedModel, loop.State, Recipe, dict[str, Any]]:
    """(the model of the best trial, how it was trained, its recipe, facts of the search)."""
    given, tried = learning.given, out.parent / "trials"
    found = search.search(
        recipe, asdict(settings), lambda trial, scratch, stop: learning.train(learning.model(trial), trial, scratch, stop), tried
    )
    model = learning.model(found.recipe)
    with progress.silent():  # it is trained already
        state = learning.learn(model, found.recipe, found.scratch)
        if found.defaults not in (None, found.scratch):
            plain = learning.model(recipe)
            learning.learn(plain, recipe, found.defaults)
            found.facts["test_of_defaults"] = given.metrics(given.scored(plain, given.splits["test"], "test"))
    return model, state, found.recipe, {"search": found.facts}


def _baselines(recipe: Recipe, given: Given, dataset: Dataset, learns: Any, model: PreTrainedModel, scratch: Path) -> dict[str, Any]:
    pairs = "text_pair" in dataset.facts["columns"]
    told = not pairs and given.task.name in descriptions.TASKS
    names = before.described(recipe, given.task, given.labels, given.tokenizer, given.longest) if told else []
    return before.measure(recipe, learns, model, given.splits, given.pad_id, given.labels, given.device, scratch, names)


def _tell_steps(model: PreTrainedModel, settings: loop.Settings, count: int, unit: str, method: str) -> int:
    """How many weights are trained."""
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    steps = f"{settings.epochs} epochs of {count} {unit}, batches of {settings.batch_size}, learning rate {settings.learning_rate:g}" + (
        f", at most {settings.max_steps} steps" if settings.max_steps else ""
    )
    fitted = "the head is made of the words of the labels" if method in methods.PATTERNS else f"the head is fitted to {count} {unit}"
    progress.note(steps if trained else f"nothing is trained by steps: {fitted}")
    progress.note(f"training {trained:,} of {sum(w.numel() for w in model.parameters()):,} weights with {method}")
    return trained


def _tell_memory(recipe: Recipe, settings: loop.Settings, dataset: Dataset, given: Given) -> None:
    config, meta = memory.outline(recipe, given.labels)
    tokens = memory.tokens(recipe, dataset.facts)  # a batch is as long as its longest row
    rows = -(-settings.batch_size // settings.accumulation)
    memory.tell(memory.estimate(recipe, config, meta, rows, tokens, given.device), given.device)


def _same_after_reload(given: Given, model: PreTrainedModel, probe: Sequence[Mapping[str, Any]], reported: Scores) -> None:
    again: Scores = given.task.module.score(forward(model), probe, given.pad_id)
    for said, says, allowed in ((reported.value, again.value, SCORE_TOLERANCE), (reported.logits, again.logits, LOGIT_TOLERANCE)):
        if (
            said is not None
            and says is not None
            and not np.allclose(says, said, rtol=0, atol=allowed * max(1.0, float(np.abs(said).max())))
        ):
            raise GateError(f"the model reloaded from disk scores differently (by {float(np.abs(says - said).max()):.2g} on the same rows)")
