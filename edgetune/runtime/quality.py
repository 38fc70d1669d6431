"""The task's metric of what was measured, on rows: each row in a pass of its own, as an app would run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.errors import DataError, RequestError
from edgetune.runtime.contestants import Contestant
from edgetune.tasks import Arrays, Forward, Scores, Task
from edgetune.tasks.paired import RESAMPLES, share

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
    if facts["labels"] and scores.logits is not None and scores.logits.shape[1] != len(facts["labels"]):
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
    if hasattr(task.module, "report"):
        found["per_label"] = [
            {"label": one["label"], "recall": one["recall"], "support": one["support"]} for one in task.module.report(scores, labels)
        ]
    return found


def _bundle(one: Contestant, threads: int | None, provider: str | None) -> Forward:
    from edgetune.runtime import load

    bundle = load(one.folder, threads=threads, provider=provider)

    def answer(given: Arrays) -> Arrays:
        read = [kept > 0 for kept in given["attention_mask"]]
        names = [name for name in given if name not in ("attention_mask", "decoder_input_ids")]
        rows = [{name: given[name][i][kept].tolist() for name in names} for i, kept in enumerate(read)]
        for row, ahead in zip(rows, given.get("decoder_input_ids", ()), strict=False):
            row["decoder_input_ids"] = ahead.tolist()
        return bundle.alone(rows)

    return answer


def _torch(one: Contestant) -> Forward:
    import torch

    from edgetune.runtime.pytorch import load

    model = load(one.folder, one.task)

    def answer(given: Arrays) -> Arrays:
        with torch.inference_mode():
            outputs = model(**{name: torch.from_numpy(array) for name, array in given.items()})
            return {name: value.float().numpy() for name, value in outputs.items() if isinstance(value, torch.Tensor)}

    return answer


def _interval(scores: Scores, task: Task, labels: Sequence[str]) -> list[float] | None:
    """95 % interval of the task's metric: Wilson's for a share of right answers, else the percentile bootstrap over rows."""
    from scipy.stats import binomtest, bootstrap

    quality = getattr(task.module, "quality", share if task.higher_is_better else None)
    counted = np.flatnonzero(scores.weight)
    value, weight = scores.value[counted], scores.weight[counted]
    if quality is share and np.isin(value, (0, 1)).all() and (weight == 1).all():
        found = binomtest(int(value.sum()), len(value)).proportion_ci(method="wilson")
        return [float(found.low), float(found.high)]
    if len(counted) < 2:
        return None

    def metric(index: np.ndarray) -> float:
        if quality is not None:
            return float(quality(scores.take(counted[index])))
        return float(task.module.metrics(Scores(value[index], weight[index]), labels)[task.metric])

    rng = np.random.default_rng(0)
    index = np.arange(len(counted))
    found = bootstrap((index,), metric, vectorized=False, n_resamples=RESAMPLES, method="percentile", rng=rng).confidence_interval
    return [float(found.low), float(found.high)]
