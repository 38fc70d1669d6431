"""Several questions about a text, each with labels of its own: one encoder, one linear head each, one graph.

The labels are those of all tasks, each as `task:label` and those of a task together, so that the heads are the rows of one matrix and the graph
is that of any classifier: each task reads its own part of the logits. A row answers one task (data sets put together) or several (a table with
several columns of labels); what it does not answer is neither learned from nor counted. Caruana 1997, "Multitask learning".
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import DataError
from edgetune.tasks import (
    Encoded,
    Forward,
    Scores,
    Weights,
    balance,
    batches,
    confidence,
    inputs,
    padded,
    text_classification,
    texts,
    tokens,
)

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import Recipe

UNASKED = -100  # the label of a task that a row does not answer
FAR = 30.0  # under the least of a task's own logits: what its line says about the labels of the others


def classes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """task:label of all that the rows answer, sorted. Raises DataError for a task with one label only."""
    found = sorted({f"{task}:{label}" for row in rows for task, label in row["tasks"].items()}, key=lambda one: one.split(":", 1))
    if alone := [task for task, part in parts(found).items() if part.stop - part.start < 2]:
        raise DataError(
            f"train has one label only for {', '.join(alone)}", mend="leave that task away, or give rows with another label of it"
        )
    return found


def parts(labels: Sequence[str]) -> dict[str, slice]:
    """The logits of each task."""
    found: dict[str, slice] = {}
    for task, some in groupby(range(len(labels)), lambda i: labels[i].split(":", 1)[0]):
        own = list(some)
        found[task] = slice(own[0], own[-1] + 1)
    return found


def slices(ends: Sequence[int]) -> list[slice]:
    """The same, of where each ends."""
    return [slice(start, end) for start, end in pairwise([0, *ends])]


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """Rows with `text`, perhaps `text_pair`, and `tasks` -> examples with `input_ids`, `answers` [tasks], each an index of all labels or
    UNASKED, and `ends` [tasks]: where the logits of each task end. Raises DataError for a label that is not in `labels`."""
    index, own = {label: i for i, label in enumerate(labels)}, parts(labels)
    given = [{task: f"{task}:{label}" for task, label in row.get("tasks", {}).items()} for row in rows]
    if unknown := sorted({label for row in given for label in row.values()} - index.keys()):
        raise DataError(
            f"labels that the model does not know: {', '.join(unknown[:5])}", mend="give rows with those that it was trained on"
        )
    examples, cut = tokens(tokenizer, *texts(rows), max_length=max_length)
    answers = [[index[row[task]] if task in row else UNASKED for task in own] for row in given]
    both = zip(examples, answers, strict=True)
    return Encoded([{**example, "answers": some, "ends": [part.stop for part in own.values()]} for example, some in both], cut)


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """`labels` [b, tasks] int64; `ends` [tasks] int64, where the logits of each task end."""
    labels = np.array([example["answers"] for example in examples], dtype=np.int64)
    return {**padded(examples, pad_id), "labels": labels, "ends": np.array(examples[0]["ends"], dtype=np.int64)}


def loss(
    outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0, weights: Weights | None = None
) -> torch.Tensor:
    """Cross-entropy of each answer over its task's labels, with label smoothing; the mean over the answers. `logits` [b, all labels]."""
    import torch
    from torch.nn.functional import cross_entropy

    logits, start, found = outputs["logits"].float(), 0, []
    for labels, end in zip(batch["labels"].T, batch["ends"].tolist(), strict=True):
        asked = labels != UNASKED
        each = cross_entropy(logits[asked, start:end], labels[asked] - start, reduction="none", label_smoothing=smoothing)
        found.append(each if weights is None else each * balance.of(weights[0], labels[asked]))
        start = end
    return torch.cat(found).mean()


def weights(examples: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Weights:
    """Of the labels of each task, among its answers."""
    answers = np.array([example["answers"] for example in examples])
    found = [
        balance.weights(column[column != UNASKED] - part.start, part.stop - part.start)
        for column, part in zip(answers.T, parts(labels).values(), strict=True)
    ]
    return (np.concatenate(found),)


def drawn(examples: Sequence[Mapping[str, Any]], temperature: float, chance: random.Random) -> list[int]:
    """As many indices as there are examples: of n that answer the same tasks, in proportion to n^(1/temperature) (Devlin 2019, "Multilingual
    BERT"; Raffel et al., arXiv:1910.10683, section 3.5.2). None comes twice before all of its kind came once."""
    kinds: dict[tuple[bool, ...], list[int]] = {}
    for i, example in enumerate(examples):
        kinds.setdefault(tuple(answer != UNASKED for answer in example["answers"]), []).append(i)
    shares = np.array([len(some) for some in kinds.values()]) ** (1 / temperature)
    ends = np.rint(np.cumsum(shares) / shares.sum() * len(examples)).astype(int)
    found: list[int] = []
    for some, count in zip(kinds.values(), np.diff(ends, prepend=0).tolist(), strict=True):
        whole, rest = divmod(count, len(some))
        found += some * whole + chance.sample(some, rest)
    return found


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """See `answered`; `size` rows at a time."""
    logits = np.empty((len(examples), examples[0]["ends"][-1]), dtype=np.float32)
    for index in batches(examples, size):
        logits[index] = forward(inputs(collate([examples[i] for i in index], pad_id)))["logits"]
    return answered(logits, examples)


def answered(logits: np.ndarray, examples: Sequence[Mapping[str, Any]]) -> Scores:
    """`logits` and `target`: for each row a line an answer, over all labels, those of other tasks far down.

    value: right answers of a row, weight: all of them. `extra` [n, tasks]: 1 right, 0 wrong, -1 not asked.
    """
    targets = np.array([example["answers"] for example in examples])
    asked = targets != UNASKED
    extra = np.full(targets.shape, -1.0)
    lines = np.full((int(asked.sum()), logits.shape[1]), np.nan, dtype=np.float32)
    rows, tasks = np.nonzero(asked)
    for t, part in enumerate(slices(examples[0]["ends"])):
        own = logits[asked[:, t], part]
        extra[asked[:, t], t] = own.argmax(-1) + part.start == targets[asked[:, t], t]
        lines[tasks == t] = own.min(-1, keepdims=True) - FAR
        lines[tasks == t, part] = own
    return Scores(
        (extra > 0).sum(-1).astype(np.float64), asked.sum(-1).astype(np.float64), lines, targets[rows, tasks], asked.sum(-1), extra
    )


def quality(scores: Scores) -> float:
    """The mean of the accuracies of the tasks that the rows answer."""
    assert scores.extra is not None
    asked = (scores.extra >= 0).sum(axis=0)
    return float(((scores.extra > 0).sum(axis=0)[asked > 0] / asked[asked > 0]).mean())


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """accuracy and macro_f1, the means over the tasks that the rows answer; log_loss, the mean over answers; then TASK_accuracy of each."""
    each = list(_each(scores, labels))
    found = {name: text_classification.metrics(of, labels[part]) for name, part, of in each}
    return {
        **{metric: float(np.mean([one[metric] for one in found.values()])) for metric in ("accuracy", "macro_f1")},
        "log_loss": float(np.average([one["log_loss"] for one in found.values()], weights=[len(of.value) for _, _, of in each])),
        **{f"{name}_accuracy": one["accuracy"] for name, one in found.items()},
    }


def report(scores: Scores, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Per label of each task, as `text_classification.report`."""
    return [row for _, part, of in _each(scores, labels) for row in text_classification.report(of, labels[part])]


def calibrate(scores: Scores, recipe: Recipe) -> dict[str, Any]:
    """`of_tasks`: temperature and reject_below of each (see `confidence`), in their order; those of a task without rows reject nothing."""
    assert scores.extra is not None
    found = [confidence.Confidence(1.0, 0.0, "")] * scores.extra.shape[1]
    for t, of in _lines(scores):
        found[t] = confidence.fit(of, recipe.export.reject_below)
    chosen_by = next((one.chosen_by for one in found if one.chosen_by), "")
    return {"of_tasks": [{"temperature": one.temperature, "reject_below": one.reject_below} for one in found], "chosen_by": chosen_by}


def calibrated(scores: Scores, facts: Mapping[str, Any]) -> dict[str, float]:
    """The means over the tasks of what `confidence.measure` finds."""
    found = [confidence.measure(of, confidence.Confidence(**facts["of_tasks"][t], chosen_by="")) for t, of in _lines(scores)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _each(scores: Scores, labels: Sequence[str]) -> Iterator[tuple[str, slice, Scores]]:
    """(task, its part of the labels, scores of its answers over these) of each that the rows answer."""
    own = list(parts(labels).items())
    yield from ((*own[t], of) for t, of in _lines(scores))


def _lines(scores: Scores) -> Iterator[tuple[int, Scores]]:
    """(index of a task, scores of its answers over its own labels) of each that the rows answer."""
    assert scores.logits is not None and scores.target is not None and scores.extra is not None
    rows, tasks = np.nonzero(scores.extra >= 0)
    for t in sorted(set(tasks.tolist())):
        at = tasks == t
        lines = scores.logits[at]
        own = np.flatnonzero((lines[0] > lines[0].min()) | (scores.extra.shape[1] == 1))  # the others are equally far down
        yield t, Scores(scores.extra[rows[at], t], np.ones(int(at.sum())), lines[:, own], scores.target[at] - own[0])
