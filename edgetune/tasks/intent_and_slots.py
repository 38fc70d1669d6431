"""What a sentence asks for (its intent), and with what (its slots): one encoder, two heads, one graph.

The labels are the intents, each as `intent:NAME`, then the tags of the slots (BIO2, see `entities`). A row counts as right when its intent
and all of its slots are: the frame accuracy (also called exact match, or sentence accuracy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import DataError
from edgetune.tasks import Encoded, Forward, Scores, Weights, balance, batches, confidence, entities, inputs, text_classification

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import Recipe

INTENT = "intent:"  # the same in `two_heads`
FAR = 30.0  # under the least of a line's own logits: what a line of logits says about the classes of the other head


def classes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """intent:NAME of every intent, sorted; then O, and B- and I- of every type of slot, sorted."""
    types = sorted({tag[2:] for row in rows for tag in row["tags"] if tag != entities.OUTSIDE})
    intents = sorted({row["intent"] for row in rows})
    return [*(f"{INTENT}{name}" for name in intents), entities.OUTSIDE, *(f"{role}-{kind}" for kind in types for role in "BI")]


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """As `entities.encode`, with `intent`: its index. Raises DataError for an intent that is not in `labels`."""
    intents = {label.removeprefix(INTENT): i for i, label in enumerate(labels) if label.startswith(INTENT)}
    if unknown := sorted({row["intent"] for row in rows} - intents.keys()):
        raise DataError(
            f"intents that the model does not know: {', '.join(unknown[:5])}", mend="give rows with those that it was trained on"
        )
    found = entities.encode(rows, tokenizer, max_length=max_length, labels=labels[len(intents) :])
    gone = {i for i, _ in found.left_out}
    kept = [row for i, row in enumerate(rows) if i not in gone]
    return replace(found, examples=[{**e, "intent": intents[row["intent"]]} for e, row in zip(found.examples, kept, strict=True)])


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    intents = np.array([example["intent"] for example in examples], dtype=np.int64)
    return {**entities.collate(examples, pad_id), "intents": intents}


def loss(
    outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0, weights: Weights | None = None
) -> torch.Tensor:
    """The sum of both heads' cross-entropies, each with label smoothing and the mean over what it learns from."""
    from torch.nn.functional import cross_entropy

    of_intents, of_tags = weights or (None, None)
    each = cross_entropy(outputs["logits"].float(), batch["intents"], reduction="none", label_smoothing=smoothing)
    intents = (each if of_intents is None else each * balance.of(of_intents, batch["intents"])).mean()
    return intents + entities.loss(outputs["slot_logits"], batch["labels"], smoothing, of_tags)


def weights(examples: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Weights:
    """Of the intents, and of the tags of the tokens that are learned."""
    tags = len(examples[0]["names"])
    intents = np.array([example["intent"] for example in examples])
    return balance.weights(intents, len(labels) - tags), entities.weights(examples, tags)


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """`logits` and `target`: for each row a line for the intent, then one a word, over all labels. value 1 where intent and slots are right.

    `extra` [n, 4]: whether the intent is right; slots that are right, told, there.
    """
    found: dict[int, np.ndarray] = {}
    extra = np.zeros((len(examples), 4))
    for index in batches(examples, size):
        said = forward(inputs(collate([examples[i] for i in index], pad_id)))
        for i, intents, slots in zip(index, said["logits"], said["slot_logits"], strict=True):
            words = entities.of_words(np.asarray(slots, dtype=np.float32), examples[i])
            found[i] = _over_all(np.asarray(intents, dtype=np.float32)[None], words)
            names = examples[i]["names"]
            told, right = ([names[k] for k in tags] for tags in (words.argmax(-1), examples[i]["tags"]))
            extra[i] = (intents.argmax() == examples[i]["intent"], *entities.counts(told, right))
    lines = [found[i] for i in range(len(examples))]
    target = [[e["intent"], *(tag + lines[0].shape[-1] - len(e["names"]) for tag in e["tags"])] for e in examples]
    return Scores(
        value=((extra[:, 0] > 0) & (extra[:, 1] == extra[:, 2]) & (extra[:, 1] == extra[:, 3])).astype(np.float64),
        weight=np.ones(len(examples)),
        logits=np.concatenate(lines),
        target=np.concatenate([np.array(one, dtype=np.int64) for one in target]),
        lines=np.array([len(part) for part in lines], dtype=np.int64),
        extra=extra,
    )


def _over_all(intents: np.ndarray, words: np.ndarray) -> np.ndarray:
    """[1, intents] and [words, tags] -> [1 + words, intents + tags], each line far down where the other head speaks."""
    ends = np.repeat(intents.min(-1, keepdims=True) - FAR, words.shape[-1], axis=-1)
    starts = np.repeat(words.min(-1, keepdims=True) - FAR, intents.shape[-1], axis=-1)
    return np.concatenate([np.concatenate([intents, ends], axis=-1), np.concatenate([starts, words], axis=-1)])


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """frame_accuracy, intent_accuracy; slot_f1, slot_precision, slot_recall (micro averages, as seqeval); log_loss of intents and words."""
    assert scores.logits is not None and scores.target is not None and scores.extra is not None
    return {
        "frame_accuracy": float(scores.value.mean()),
        "intent_accuracy": float(scores.extra[:, 0].mean()),
        **{f"slot_{name}": value for name, value in entities.shares(scores.extra[:, 1:]).items()},
        "log_loss": entities.log_loss(scores.logits, scores.target),
    }


def report(scores: Scores, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Per intent, then per type of slot: precision, recall, f1, support, taken_for."""
    assert scores.logits is not None and scores.target is not None and scores.lines is not None
    intents = [label for label in labels if label.startswith(INTENT)]
    told, right = ([labels[i] for i in indices] for indices in (scores.logits.argmax(-1), scores.target))
    answers, truth = ([row[1:] for row in entities.rows_of(tags, scores.lines)] for tags in (told, right))
    return [
        *text_classification.report(_intents(scores), intents),
        *entities.report(answers, truth, entities.types(labels[len(intents) :])),
    ]


def calibrate(scores: Scores, recipe: Recipe) -> dict[str, Any]:
    """temperature, reject_below, chosen_by of the intents: see `confidence`."""
    return asdict(confidence.fit(_intents(scores), recipe.export.reject_below))


def calibrated(scores: Scores, facts: Mapping[str, Any]) -> dict[str, float]:
    return confidence.measure(_intents(scores), confidence.Confidence(**facts))


def _intents(scores: Scores) -> Scores:
    """The line of each row that is about its intent, over the intents alone."""
    assert scores.logits is not None and scores.target is not None and scores.lines is not None and scores.extra is not None
    first = scores.lines.cumsum() - scores.lines
    logits = scores.logits[first]
    intents = int((logits[0] > logits[0].min()).sum())  # the others are equally far down
    return Scores(scores.extra[:, 0], scores.weight, logits[:, :intents], scores.target[first])
