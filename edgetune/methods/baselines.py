"""What adaptation has to beat: the base's frozen features with a logistic regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.methods.device import Device
from edgetune.tasks import Arrays, Scores, batches, inputs, intent_and_slots, token_classification
from edgetune.tasks.text_classification import OUT_OF_SCOPE, collate

BATCH = 64
MOST_ROWS, MOST_WORDS = 4000, 10_000  # of train, drawn by the row


def logistic_regression(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """Scores on `test` of scikit-learn's LogisticRegression on mean-pooled, normalised features of the frozen base."""
    known = [example for example in train if example["label"] != OUT_OF_SCOPE]
    with progress.bar("baseline: frozen features", len(known) + len(test)) as bar:
        features, asked = (_features(model, rows, pad_id, device, bar) for rows in (known, test))
    target = np.array([example["label"] for example in known])
    logits = _fitted(features, target, classes)(asked)
    answers = np.array([example["label"] for example in test], dtype=np.int64)
    inside = answers != OUT_OF_SCOPE
    return Scores((inside & (logits.argmax(-1) == answers)).astype(np.float64), inside.astype(np.float64), logits, answers)


def logistic_regression_of_words(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """Scores on `test` of a LogisticRegression on the frozen base's features of the sub-words that decide, from MOST_WORDS words of `train`."""
    tag = _tagger(model, train, pad_id, classes, device)
    return token_classification.score(lambda given: {"logits": tag(_hidden(model, given, device))}, test, pad_id)


def logistic_regressions(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """Two of them, for intents (on MOST_ROWS rows of `train`) and for the words of slots."""
    tags = len(train[0]["names"])
    tag = _tagger(model, train, pad_id, tags, device)
    rows = [train[i] for i in np.random.default_rng(0).permutation(len(train))[:MOST_ROWS]]
    with progress.bar("baseline: frozen features", len(rows)) as bar:
        features = _features(model, [{**row, "label": row["intent"]} for row in rows], pad_id, device, bar)
    intent = _fitted(features, np.array([row["intent"] for row in rows]), classes - tags)

    def forward(given: Arrays) -> Arrays:
        with progress.silent():
            examples = [
                {"input_ids": ids[mask > 0].tolist(), "label": 0}
                for ids, mask in zip(given["input_ids"], given["attention_mask"], strict=True)
            ]
            with progress.bar("", len(examples)) as bar:
                pooled = _features(model, examples, pad_id, device, bar)
        return {"logits": intent(pooled), "slot_logits": tag(_hidden(model, given, device))}

    return intent_and_slots.score(forward, test, pad_id)


def _tagger(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Callable[[np.ndarray], np.ndarray]:
    """Hidden states [b, s, hidden] -> logits of tags [b, s, classes], fitted on words of `train`."""
    order = np.random.default_rng(0).permutation(len(train))
    words = np.cumsum([len(train[i]["words"]) for i in order])
    rows = [train[i] for i in order[: int(np.searchsorted(words, MOST_WORDS)) + 1]]
    features, target = [], []
    with progress.bar("baseline: frozen features of words", len(rows)) as bar:
        for index in batches(rows, BATCH):
            some = [rows[i] for i in index]
            hidden = _hidden(model, inputs(token_classification.collate(some, pad_id)), device)
            for row, states in zip(some, hidden, strict=True):
                seen = [(token, tag) for token, tag in zip(row["words"], row["tags"], strict=True) if token >= 0]
                features.append(states[[token for token, _ in seen]])
                target += [tag for _, tag in seen]
            bar.advance(len(index))
    return _fitted(np.concatenate(features), np.array(target), classes)


def _fitted(features: np.ndarray, target: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """[..., hidden] -> logits [..., classes] float32 of scikit-learn's LogisticRegression; a class that `target` lacks is never the answer."""
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression

    several = len(np.unique(target)) > 1
    fitted = (LogisticRegression(C=10.0, max_iter=200) if several else DummyClassifier()).fit(features, target)

    def answer(asked: np.ndarray) -> np.ndarray:
        chances = fitted.predict_proba(asked.reshape(-1, asked.shape[-1]))
        logits = np.full((len(chances), classes), -1e9, dtype=np.float32)
        logits[:, fitted.classes_] = np.log(np.maximum(chances, 1e-30))
        return logits.reshape(*asked.shape[:-1], classes)

    return answer


def _hidden(model: PreTrainedModel, given: Arrays, device: Device) -> np.ndarray:
    """[b, s, hidden] float32: the last hidden states, each scaled to length 1."""
    tensors = {name: torch.from_numpy(array).to(device.torch) for name, array in given.items()}
    with torch.no_grad(), device.autocast():
        hidden = model(**tensors, output_hidden_states=True).hidden_states[-1].float()
    return torch.nn.functional.normalize(hidden, dim=-1).cpu().numpy()


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
    "token-classification": logistic_regression_of_words,
    "intent-and-slots": logistic_regressions,
}
