"""What adaptation has to beat: the base's frozen features with a logistic regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.methods.device import Device
from edgetune.tasks import Scores, batches, inputs
from edgetune.tasks.text_classification import OUT_OF_SCOPE, collate

BATCH = 64


def logistic_regression(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """Scores on `test` of scikit-learn's LogisticRegression on mean-pooled, normalised features of the frozen base."""
    from sklearn.linear_model import LogisticRegression

    known = [example for example in train if example["label"] != OUT_OF_SCOPE]
    with progress.bar("baseline: frozen features", len(known) + len(test)) as bar:
        features, asked = (_features(model, rows, pad_id, device, bar) for rows in (known, test))
    target = np.array([example["label"] for example in known])
    fitted = LogisticRegression(C=10.0, max_iter=200).fit(features, target)
    logits = np.full((len(test), classes), -1e9, dtype=np.float32)
    logits[:, fitted.classes_] = np.log(np.maximum(fitted.predict_proba(asked), 1e-30))
    answers = np.array([example["label"] for example in test], dtype=np.int64)
    inside = answers != OUT_OF_SCOPE
    return Scores((inside & (logits.argmax(-1) == answers)).astype(np.float64), inside.astype(np.float64), logits, answers)


def _features(model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], pad_id: int, device: Device, bar: progress.Bar) -> np.ndarray:
    """[n, hidden] float32: the last hidden states, averaged over real tokens and scaled to length 1."""
    found: np.ndarray | None = None
    for index in batches(rows, BATCH):
        batch = collate([rows[i] for i in index], pad_id)
        given = {name: torch.from_numpy(array).to(device.torch) for name, array in inputs(batch).items()}
        with torch.no_grad(), device.autocast():
            hidden = model(**given, output_hidden_states=True).hidden_states[-1].float()
        weight = given["attention_mask"].unsqueeze(-1).float()
        mean = torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1).cpu().numpy()
        if found is None:
            found = np.empty((len(rows), mean.shape[1]), dtype=np.float32)
        found[index] = mean
        bar.advance(len(index))
    assert found is not None, "no rows"
    return found


BASELINES: dict[str, Callable[..., Scores]] = {  # by task
    "text-classification": logistic_regression,
    "relation-extraction": logistic_regression,
}
