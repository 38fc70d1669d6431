"""augment: rows to learn from that are made of those of train, that a language model writes, or of texts without labels."""

from __future__ import annotations

import json
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import data, methods, progress, tasks
from edgetune.artifact import Adapted, Dataset
from edgetune.data import augment as augmentation
from edgetune.data import unlabelled
from edgetune.data.columns import key
from edgetune.errors import DataError, GateError
from edgetune.methods import generator
from edgetune.methods.device import choose
from edgetune.methods.imitation import encoded, output, teach
from edgetune.methods.model import load_tokenizer
from edgetune.recipe import Recipe
from edgetune.tasks.confidence import softmax

MADE = "augmented"


def augment(recipe: Recipe, dataset: Dataset, teacher: Adapted | None, out: Path) -> dict[str, Any]:
    """Write the rows that `recipe.augment` asks for into `out`, each marked with how it was made. Returns how many of each, and why not more.

    `teacher`: the first model, which labels texts and judges those that were written. Raises GateError when one of the rows has a text of validation or test.
    """
    rows = {split: data.rows(dataset.path, split) for split in data.SPLITS}
    held = [*rows["validation"], *rows["test"]]
    made, facts = augmentation.copies(rows["train"], held, recipe)
    if teacher and "text_pair" in dataset.facts["columns"]:
        raise DataError("a first model labels single texts, but a row of this data is a pair", mend="leave these kinds out of --augment")
    if teacher and "generation" in recipe.augment.kinds:
        agreed, told = _written(recipe, dataset, teacher, rows["train"], {key(row) for row in [*rows["train"], *held, *made]})
        made, facts = made + agreed, facts | {"generation": told}
    if teacher and "self-training" in recipe.augment.kinds:
        labelled, told = _labelled(recipe, dataset, teacher, {key(row) for row in [*rows["train"], *held, *made]})
        made, facts = made + labelled, facts | {"self_training": told}
    if shared := {key(row) for row in made} & {key(row) for row in held}:
        raise GateError(f"{len(shared):,} made rows have texts of validation or test")
    with (out / f"{MADE}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    return facts


def _labelled(recipe: Recipe, dataset: Dataset, teacher: Adapted, known: set[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows of the unlabelled texts that are none of `known` and that the teacher is sure of; what became of the others).

    How sure it is: the largest probability, at the temperature that its run chose on validation.
    """
    labels = dataset.facts["labels"]
    found = unlabelled.texts(recipe, "augment.unlabelled")
    texts = list({name: text for text in found if (name := key({"text": text})) not in known}.values())
    told: dict[str, Any] = {"texts": len(found), "known": len(found) - len(texts), "threshold": recipe.augment.threshold, "rows": 0}
    if not texts:
        progress.warn("self-training: the unlabelled texts are all in train, validation or test: nothing is learned from them")
        return [], told
    sure = _chances(recipe, dataset, teacher, texts)
    kept = np.flatnonzero(sure.max(-1) >= recipe.augment.threshold)
    rows = [
        {
            "text": texts[i],
            "label": labels[sure[i].argmax()],
            "row": int(i) + 1,
            "file": "augment.unlabelled",
            augmentation.MARK: "self-training",
        }
        for i in kept
    ]
    counts = Counter(row["label"] for row in rows)
    told |= {"rows": len(rows), "label_counts": dict(sorted(counts.items()))}
    say = progress.note if rows else progress.warn
    say(
        f"self-training: {len(rows):,} of {len(texts):,} texts are labelled with a confidence of at least {recipe.augment.threshold:g}"
        f" ({len(counts)} of {len(labels)} labels); {told['known']:,} are known already"
    )
    return rows, told


def _written(
    recipe: Recipe, dataset: Dataset, teacher: Adapted, train: list[dict[str, Any]], known: set[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows of the texts that the generator wrote, that are none of `known`, and whose label is the teacher's answer; what became of the
    others)."""
    labels, scope = dataset.facts["labels"], dataset.facts["out_of_scope"]
    found = generator.written(recipe, [row for row in train if row["label"] != scope])
    new = list({name: (label, text) for label, text in found if text and (name := key({"text": text})) not in known}.values())
    chances = _chances(recipe, dataset, teacher, [text for _, text in new]) if new else np.zeros((0, len(labels)))
    kept = [i for i, (label, _) in enumerate(new) if labels[chances[i].argmax()] == label]
    rows = [
        {"text": new[i][1], "label": new[i][0], "row": i + 1, "file": "augment.generator", augmentation.MARK: "generation"} for i in kept
    ]
    counts = dict(sorted(Counter(row["label"] for row in rows).items()))
    told = {"written": len(found), "known": len(found) - len(new), "disagreed": len(new) - len(rows), "rows": len(rows)}
    say = progress.note if rows else progress.warn
    say(
        f"generation: {len(rows):,} of {len(found):,} written texts are learned ({len(counts)} of {len(labels)} labels); "
        f"of {told['disagreed']:,} the first model says something else, {told['known']:,} are empty, repeated or known already"
    )
    return rows, {**told, "label_counts": counts}


def _chances(recipe: Recipe, dataset: Dataset, teacher: Adapted, texts: list[str]) -> np.ndarray:
    """[texts, labels]: the teacher's probabilities, at the temperature that its run chose on validation."""
    tokenizer = load_tokenizer(recipe)
    model = import_module(methods.get(recipe.method).module).restore(recipe, teacher.path, dataset.facts["labels"])
    examples = encoded([(text,) for text in texts], tokenizer, teacher.facts["max_length"])
    logits = teach(model, examples, output(tasks.get(recipe.task)), tokenizer.pad_token_id, choose(recipe.adapt))
    return softmax(logits, teacher.facts["confidence"]["temperature"])
