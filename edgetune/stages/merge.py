"""merge: fold what was trained into a plain Hugging Face directory, and prove that it answers the same."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import data, methods, progress, tasks
from edgetune.artifact import Adapted, Dataset
from edgetune.errors import GateError
from edgetune.methods.model import Merge, forward, load_merged, load_tokenizer
from edgetune.recipe import Recipe

TOLERANCE = 1e-3
MARGIN = 2e-3  # a label may only flip where the two best are nearer than this
ROWS = 128


def merge(recipe: Recipe, dataset: Dataset, adapted: Adapted, out: Path) -> dict[str, Any]:
    """Write the merged float32 model and its tokenizer into `out`. Raises GateError when its logits differ from the adapter's."""
    task, method = tasks.get(recipe.task), methods.get(recipe.method)
    labels, longest = adapted.facts["labels"], adapted.facts["max_length"]
    tokenizer = load_tokenizer(recipe)
    merged = import_module(method.module).merge(recipe, adapted.path, labels)
    merged.model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    rows = data.rows(dataset.path, "validation")[:ROWS]
    examples = task.module.encode(rows, tokenizer, max_length=longest, labels=labels).examples
    reloaded = load_merged(out, recipe.task)
    difference, flips = _compare(forward(merged.reference.eval()), forward(reloaded), examples, task, tokenizer.pad_token_id)
    facts = {
        "max_logit_difference": difference,
        "label_flips": flips,
        "rows": len(examples),
        "into": merged.into,
        "labels": labels,
        "max_length": longest,
        "inputs": adapted.facts.get("inputs", []),
        "asks": list(tasks.of(recipe.task, dataset.facts["columns"]).asks),
    }
    if difference > TOLERANCE or flips:
        raise GateError(
            f"the merged model differs from the adapter on its base: logits by {difference:.2g} (allowed {TOLERANCE}), {flips} answers flipped",
            mend="report this with the model's name: the run directory still holds the adapter",
        )
    if merged.others:
        facts["bases"] = _bases(task, merged, reloaded, examples, tokenizer.pad_token_id, labels)
    progress.note(
        f"merged into {merged.into}; logits differ by at most {difference:.1g} on {len(examples)} validation rows, {flips} answers flipped"
    )
    return facts


def _bases(
    task: tasks.Task, merged: Merge, model: Any, examples: list[Mapping[str, Any]], pad_id: int, labels: list[str]
) -> dict[str, float]:
    """The metric on these validation rows of the adapter merged into each base that it could have gone into."""
    found = {}
    for name, load in {merged.into: lambda: model, **merged.others}.items():
        with progress.bar(f"scoring on {name}", 1) as bar:
            scores = task.module.score(forward(load()), examples, pad_id)
            bar.advance(1)
        found[name] = task.module.metrics(scores, labels)[task.metric]
    shown = ", ".join(f"{value:.4f} on {name}" for name, value in found.items())
    progress.note(f"validation {task.metric} of the adapter: {shown}; {merged.into} is taken")
    return found


def _compare(
    reference: tasks.Forward, merged: tasks.Forward, examples: list[Mapping[str, Any]], task: tasks.Task, pad_id: int
) -> tuple[float, int]:
    """(largest absolute logit difference, answers that differ although the margin is clear) over real positions."""
    worst, flips, names = 0.0, 0, set(task.outputs)
    with progress.bar("comparing merged and adapter", len(examples)) as bar:
        for index in tasks.batches(examples, 8):
            batch = task.module.collate([examples[i] for i in index], pad_id)
            given = tasks.inputs(batch)
            expected, found = reference(given), merged(given)
            real = batch["labels"] != -100 if "decoder_input_ids" in batch else batch["attention_mask"].astype(bool)
            for name in names & expected.keys() & found.keys():
                a, b = expected[name], found[name]
                if a.ndim == 3:
                    a, b = (said[real] for said in (a, b))
                worst = max(worst, float(np.nan_to_num(np.abs(a - b), nan=np.inf).max()))
                if a.shape[-1] > 1:
                    best = np.partition(a, -2, axis=-1)[..., -2:]
                    clear = best[..., 1] - best[..., 0] > MARGIN
                    flips += int(((a.argmax(-1) != b.argmax(-1)) & clear).sum())
            bar.advance(len(index))
    return worst, flips
