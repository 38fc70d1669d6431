"""compress: the adapted model made smaller, as a plain Hugging Face directory, one for each size; distilled from the adapted one."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoTokenizer

from edgetune import compress as sizes_of
from edgetune import data, progress, tasks
from edgetune.artifact import Artifact, Dataset, Merged
from edgetune.compress import Size, distil, shrink, vocabulary
from edgetune.data import split
from edgetune.data.columns import question
from edgetune.errors import RecipeError
from edgetune.methods import imitation, loop, teachers
from edgetune.methods.device import choose
from edgetune.methods.model import forward, load_merged
from edgetune.recipe import Recipe

BATCH = 32


def sizes(recipe: Recipe, merged: Merged) -> tuple[Size, ...]:
    """The sizes that the recipe asks for, the largest first."""
    if not recipe.export.fit and not any((recipe.compress.vocabulary, recipe.compress.layers, recipe.compress.feed_forward)):
        return (Size(),)
    if not tasks.get(recipe.task).imitates:
        fitting = [task.name for task in tasks.TASKS.values() if task.imitates]
        raise RecipeError(
            f"--fit and [compress] are not for {recipe.task}: a smaller model learns answers to a whole text only",
            mend=f"leave them out; they are for {', '.join(fitting)}",
        )
    config = AutoConfig.from_pretrained(merged.path)
    return sizes_of.sizes(recipe.compress, recipe.export.fit, shrink.layers(config), shrink.feed_forward(config), config.vocab_size)


def teach(recipe: Recipe, dataset: Dataset, models: Sequence[Merged], out: Path) -> dict[str, Any]:
    """Write the texts that students learn from into `out`, and what `models`, or those of `compress.teacher`, answer to each together. The first
    of `models` is the adapted one."""
    merged = models[0]
    task, asks = tasks.get(recipe.task), merged.facts.get("asks", ["text"])
    rows = data.rows(dataset.path, "train")
    own = [tuple(row[name] for name in asks) for row in rows]
    if asks == ["text"]:  # the other text of a pair that is read text by text
        own += [(row["text_pair"],) for row in rows if "text_pair" in row]
    texts, counts = imitation.texts(recipe, "compress", own, merged.path)
    if others := teachers.named(recipe, "compress"):
        teachers.separate(others, {split: data.rows(dataset.path, split) for split in ("train", "validation", "test")})
        answers = imitation.together(others, texts, task, merged.facts["labels"], choose(recipe.adapt))
        counts["teachers"] = len(others)
    else:
        tokenizer, device = AutoTokenizer.from_pretrained(merged.path), choose(recipe.adapt)
        examples, pad_id = imitation.encoded(texts, tokenizer, merged.facts["max_length"]), tokenizer.pad_token_id or 0
        loaded = (load_merged(model.path, recipe.task) for model in models)
        answers = np.mean([imitation.teach(model, examples, imitation.output(task), pad_id, device) for model in loaded], axis=0)
        counts["teachers"] = len(models)
    (out / "texts.json").write_text(json.dumps(texts, ensure_ascii=False), "utf-8")
    np.save(out / "answers.npy", answers)
    return counts


def compress(recipe: Recipe, dataset: Dataset, start: Merged, taught: Artifact | None, size: Size, out: Path) -> dict[str, Any]:
    """Write the model of `size`, cut from `start`, into `out`. `start` is the adapted model, or one made of it that is at least as large.

    Returns its sizes, what distillation reached on the first half of validation, and the seconds.
    """
    started = time.monotonic()
    source, kept = start.path, ("labels", "max_length", "asks", "inputs", "vocabulary")  # what is true of every size
    facts = {"size": size.name} | {name: start.facts[name] for name in kept if name in start.facts}
    if size.vocabulary and "vocabulary" not in facts:
        place = out if not size.learns else out.parent / "vocabulary"
        facts["vocabulary"] = _prune(recipe, dataset, start.path, size, place)
        source = place
    if size.learns:
        assert taught is not None
        facts |= _distil(recipe, dataset, taught, size, source, start.facts, out)
    facts["seconds"] = round(time.monotonic() - started, 1)
    return facts


def _prune(recipe: Recipe, dataset: Dataset, source: Path, size: Size, place: Path) -> dict[str, Any]:
    texts = [question(row) for row in data.rows(dataset.path, "train")]
    place.mkdir(exist_ok=True)
    load = partial(load_merged, task=recipe.task)
    try:
        found = vocabulary.prune(source, texts, size.vocabulary, place, load)
    except RecipeError:
        if not size.at_least_spelling:
            raise
        found = vocabulary.prune(source, texts, 0, place, load)
    progress.note(f"vocabulary: {found['entries']:,} of {found['entries_before']:,} entries stay")
    return found


def _distil(
    recipe: Recipe, dataset: Dataset, taught: Artifact, size: Size, source: Path, facts: Mapping[str, Any], out: Path
) -> dict[str, Any]:
    task, labels, keys = tasks.get(recipe.task), facts["labels"], recipe.compress
    tokenizer = AutoTokenizer.from_pretrained(source)
    student = shrink.shrink(load_merged(source, recipe.task), size.layers, size.feed_forward)
    pad_id = tokenizer.pad_token_id or 0
    half = split.halves(data.rows(dataset.path, "validation"), recipe.seed)[0]
    watched = task.module.encode(half, tokenizer, max_length=facts["max_length"], labels=labels).examples
    device = choose(recipe.adapt)

    def evaluate(model: Any) -> Mapping[str, float]:
        return task.module.metrics(task.module.score(forward(model, device), watched, pad_id), labels)

    settings = loop.Settings(
        epochs=keys.epochs,
        batch_size=BATCH,
        accumulation=1,
        learning_rate=keys.learning_rate,
        warmup=0.1,
        weight_decay=0.01,
        clip_norm=1.0,
        label_smoothing=0.0,
        early_stopping=0,
        max_steps=0,
        checkpoint_every=0,
        seed=recipe.seed,
        averaged=True,
    )
    texts = json.loads((taught.path / "texts.json").read_text("utf-8"))
    answers = np.load(taught.path / "answers.npy", allow_pickle=False)
    state = distil.distil(
        student,
        imitation.encoded(texts, tokenizer, facts["max_length"]),
        answers,
        imitation.Imitation(imitation.output(task), task.imitates, keys.temperature),
        pad_id,
        evaluate,
        lambda found: (found[task.metric], found[task.tie]),
        (task.metric, task.tie),
        settings,
        device,
        out.parent,
    )
    student.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    weights = sum(weight.numel() for weight in student.parameters())
    adapted = facts["adapted"] if "adapted" in facts else evaluate(load_merged(source, recipe.task))[task.metric]
    return {
        "parameters": weights,
        "history": state.history,
        "steps": state.step,
        "texts": len(texts),
        "watched": len(half),
        "adapted": adapted,
        "lost": max(0.0, adapted - state.best[0]) if state.best else 0.0,
    }


def hopeless(facts: Mapping[str, Any], allowed: float) -> bool:
    """True when a student lost so much more than `allowed` that a smaller one need not be tried: by two standard errors on the rows it was
    watched on, which no choice was made on."""
    lost = facts.get("lost", 0.0)
    return bool(lost > allowed + 2 * math.sqrt(max(lost, allowed) / max(1, facts.get("watched", 0))))
