"""The task's metric of what was measured, on rows: each row in a pass of its own, as an app would run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.errors import DataError, RequestError
from edgetune.runtime.contestants import Contestant
from edgetune.tasks import Arrays, Forward, Scores, Task

RESAMPLES = 1000
Rows = Sequence[Mapping[str, Any]]


def score(one: Contestant, rows: Rows, *, threads: int | None = None, provider: str | None = None) -> Scores:
    """What `one` says about `rows`, in their order. Raises DataError when no row can be used, RequestError when it has other labels."""
    from transformers import AutoTokenizer

    facts = one.facts
    tokenizer = AutoTokenizer.from_pretrained(one.folder, local_files_only=True)
    encoded = one.task.module.encode(rows, tokenizer, max_length=facts["max_length"], labels=facts["labels"] or ())
    if not encoded.examples:
        raise DataError(f"none of the {len(rows)} rows can be used to score {one.path}", details=[r for _, r in encoded.left_out[:5]])
    with progress.bar(f"scoring {one.path.name}", len(encoded.examples)) as bar:
        answer = _torch(one) if one.kind == "pytorch" else _bundle(one, threads, provider)

        def forward(given: Arrays) -> Arrays:
            bar.advance(len(given["input_ids"]))
            return answer(given)

        scores: Scores = one.task.module.score(forward, encoded.examples, facts["pad_id"])
    if scores.logits is not None and scores.logits.shape[1] != len(facts["labels"]):
        raise RequestError(f"{one.path} tells {scores.logits.shape[1]} labels apart, the bundle {len(facts['labels'])}")
    return scores


def facts(scores: Scores, task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """`metric`, `value`, `n` rows and `ci95`; `per_label` recall where there are labels."""
    found: dict[str, Any] = {
        "metric": task.metric,
        "value": task.module.metrics(scores, labels)[task.metric],
        "n": int(np.count_nonzero(scores.weight)),
        "ci95": _interval(scores, task, labels),
    }
    if scores.logits is not None:
        found["per_label"] = [
            {"label": one["label"], "recall": one["recall"], "support": one["support"]} for one in task.module.report(scores, labels)
        ]
    return found


def difference(scores: Scores, reference: Scores, task: Task) -> dict[str, Any] | None:
    """How much more of the metric than the reference on the same rows, with its 95 % paired-bootstrap interval, and answers that flipped.

    `value` is a difference (fractions), or the relative rise of a perplexity. None when the rows used are not the same.
    """
    if not np.array_equal(scores.weight, reference.weight):
        return None
    rows = np.flatnonzero(scores.weight)
    weight, gained = scores.weight[rows], scores.value[rows] - reference.value[rows]

    def metric(index: np.ndarray) -> np.ndarray:
        mean = gained[index].sum(-1) / weight[index].sum(-1)
        return mean if task.higher_is_better else np.expm1(mean)

    drawn = metric(np.random.default_rng(0).integers(len(rows), size=(RESAMPLES, len(rows))))
    found: dict[str, Any] = {
        "value": float(metric(np.arange(len(rows)))),
        "ci95": [float(bound) for bound in np.percentile(drawn, (2.5, 97.5))],
    }
    if scores.logits is not None:
        found["flips"] = {"right_to_wrong": int((gained < 0).sum()), "wrong_to_right": int((gained > 0).sum())}
    return found


def _bundle(one: Contestant, threads: int | None, provider: str | None) -> Forward:
    from edgetune.runtime import load

    bundle = load(one.folder, threads=threads, provider=provider)

    def answer(given: Arrays) -> Arrays:
        ids, mask = given["input_ids"], given["attention_mask"]
        logits = _stack([bundle.logits([row[kept > 0].tolist()])[0] for row, kept in zip(ids, mask, strict=True)], ids.shape[1])
        return {"logits": logits}

    return answer


def _torch(one: Contestant) -> Forward:
    import torch
    import transformers

    model = getattr(transformers, one.task.auto_class).from_pretrained(one.folder, dtype=torch.float32, local_files_only=True).eval()

    def answer(given: Arrays) -> Arrays:
        with torch.inference_mode():
            return {"logits": model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits.numpy()}

    return answer


def _stack(answers: list[np.ndarray], sequence: int) -> np.ndarray:
    """Logits of single rows as one batch; those of tokens [s, vocabulary] are filled up to `sequence`."""
    if answers[0].ndim == 1:
        return np.stack(answers)
    return np.stack([np.pad(answer, ((0, sequence - len(answer)), (0, 0))) for answer in answers])


def _interval(scores: Scores, task: Task, labels: Sequence[str]) -> list[float] | None:
    """95 % interval of the task's metric: Wilson's for a share of right answers, else the percentile bootstrap over rows."""
    from scipy.stats import binomtest, bootstrap

    counted = np.flatnonzero(scores.weight)
    value, weight = scores.value[counted], scores.weight[counted]
    if np.isin(value, (0, 1)).all() and (weight == 1).all():
        found = binomtest(int(value.sum()), len(value)).proportion_ci(method="wilson")
        return [float(found.low), float(found.high)]
    if len(counted) < 2:
        return None

    def metric(index: np.ndarray) -> float:
        return float(task.module.metrics(Scores(value[index], weight[index]), labels)[task.metric])

    rng = np.random.default_rng(0)
    index = np.arange(len(counted))
    found = bootstrap((index,), metric, vectorized=False, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
    return [float(found.low), float(found.high)]
