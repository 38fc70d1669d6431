"""What adaptation has to beat: the base's frozen features with a linear model, the names of labels, or the words that two texts share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.methods.device import Device
from edgetune.methods.sliding_window import sliding_window
from edgetune.tasks import (
    Arrays,
    Scores,
    batches,
    inputs,
    intent_and_slots,
    multi_label_classification,
    multi_task,
    padded,
    sentence_similarity,
    token_classification,
)
from edgetune.tasks.text_classification import OUT_OF_SCOPE

BATCH = 64
LEAST_LOGIT = -100.0
ZERO_SHOT_SCALE = np.float32(20)
MOST_ROWS, MOST_WORDS = 4000, 10_000  # of train, drawn by the row


def logistic_regression(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """Scores on `test` of scikit-learn's LogisticRegression on mean-pooled, normalised features of the frozen base."""
    known = [example for example in train if example["label"] != OUT_OF_SCOPE]
    with progress.bar("baseline: frozen features", len(known) + len(test)) as bar:
        features, asked = (_features(model, rows, pad_id, device, bar) for rows in (known, test))
    target = np.array([example["label"] for example in known])
    return _classified(_fitted(features, target, classes)(asked), test)


def zero_shot(
    model: PreTrainedModel, names: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, device: Device
) -> Scores:
    """Scores on `test` of the cosine of a text and what a label means (`names`: examples of each label): no row was learned from.

    See `edgetune.methods.zero_shot`, which makes a model of it.
    """
    with progress.bar("baseline: names of labels", len(names) + len(test)) as bar:
        said, asked = (_features(model, rows, pad_id, device, bar) for rows in (names, test))
    logits = ZERO_SHOT_SCALE * asked @ meant(said, names).T
    return _classified(logits, test)


def meant(vectors: np.ndarray, examples: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[descriptions, hidden] of length 1 -> [labels, hidden] float32: of each label the mean direction of its own."""
    found = np.zeros((1 + max(example["label"] for example in examples), vectors.shape[1]), dtype=np.float32)
    np.add.at(found, [example["label"] for example in examples], vectors)
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)


def _classified(logits: np.ndarray, test: Sequence[Mapping[str, Any]]) -> Scores:
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


def logistic_regression_a_label(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """As `logistic_regression`, one for each label; a label that all training rows have, or none, is answered so."""
    from sklearn.linear_model import LogisticRegression

    features, asked = _both(model, train, test, pad_id, device)
    target, wanted = (np.array([example["target"] for example in rows], dtype=np.int64) for rows in (train, test))
    logits = np.empty((len(test), classes), dtype=np.float32)
    for i, column in enumerate(target.T):
        several = len(set(column.tolist())) > 1
        logits[:, i] = (
            LogisticRegression(C=10.0, max_iter=200).fit(features, column).decision_function(asked) if several else 2 * column[0] - 1
        )
    return multi_label_classification.counted(logits, wanted)


def logistic_regression_a_task(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """As `logistic_regression`, one for each task, learned from the rows that answer it."""
    features, asked = _both(model, train, test, pad_id, device)
    answers = np.array([example["answers"] for example in train])
    logits = np.empty((len(test), classes), dtype=np.float32)
    for column, part in zip(answers.T, multi_task.slices(train[0]["ends"]), strict=True):
        own = column != multi_task.UNASKED
        said = _fitted(features[own], column[own] - part.start, part.stop - part.start)(asked)
        logits[:, part] = np.maximum(said, LEAST_LOGIT)
    return multi_task.answered(logits, test)


def ridge_regression(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """Scores on `test` of scikit-learn's RidgeCV on the same features."""
    from sklearn.linear_model import RidgeCV

    features, asked = _both(model, train, test, pad_id, device)
    target, wanted = (np.array([example["score"] for example in rows], dtype=np.float64) for rows in (train, test))
    said = RidgeCV(alphas=np.logspace(-3, 3, 7)).fit(features, target).predict(asked)
    return Scores(said, np.ones(len(said)), extra=wanted[:, None])


def shared_words(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Device
) -> Scores:
    """Scores on `test` of the cosine of tf-idf vectors of token ids, which knows no meaning: what two texts share, rare tokens first."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, asked = ([ids for example in rows for ids in (example["input_ids"], example["pair"])] for rows in (train, test))
    vectors = TfidfVectorizer(analyzer=lambda ids: ids).fit(texts).transform(asked)
    said = np.asarray(vectors[0::2].multiply(vectors[1::2]).sum(axis=1)).ravel()
    return sentence_similarity.compared(said, test)


def _both(
    model: PreTrainedModel, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, device: Device
) -> tuple[np.ndarray, np.ndarray]:
    with progress.bar("baseline: frozen features", len(train) + len(test)) as bar:
        return _features(model, train, pad_id, device, bar), _features(model, test, pad_id, device, bar)


def _features(model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], pad_id: int, device: Device, bar: progress.Bar) -> np.ndarray:
    """[n, hidden] float32: the last hidden states, averaged over real tokens and scaled to length 1."""
    found: np.ndarray | None = None
    for index in batches(rows, BATCH):
        batch = padded([rows[i] for i in index], pad_id)
        given = {name: torch.from_numpy(array).to(device.torch) for name, array in batch.items()}
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
    "multi-label-classification": logistic_regression_a_label,
    "multi-task": logistic_regression_a_task,
    "text-regression": ridge_regression,
    "sentence-similarity": shared_words,
    "question-answering": sliding_window,
}
WITHOUT_MODEL = (shared_words, sliding_window)
