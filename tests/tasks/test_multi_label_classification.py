"""Several labels a text: encoding, loss, metrics and thresholds, against scikit-learn and computations by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn.metrics
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgetune.fit import gate
from edgetune.tasks import Scores, get
from edgetune.tasks import multi_label_classification as task

LABELS = ("a", "b", "c")


def scored(logits: Any, target: Any) -> Scores:
    """As `score` makes them."""
    logits, target = np.array(logits, dtype=np.float32), np.array(target, dtype=np.int64)
    rows = [{"input_ids": [i], "target": row.tolist()} for i, row in enumerate(target)]
    return task.score(lambda given: {"logits": logits[given["input_ids"][:, 0]]}, rows, 0)


def asking(reject_below: float | None) -> Any:
    return SimpleNamespace(export=SimpleNamespace(reject_below=reject_below))


def test_encode(tmp_path: Any) -> None:
    tokenizer = tiny.tokenizer(tmp_path)
    rows = [{"text": "play the song", "labels": ["c", "a"]}, {"text": "a lamp", "labels": []}, {"text": "gate"}]
    found = task.encode(rows, tokenizer, max_length=16, labels=LABELS).examples
    assert [example["target"] for example in found] == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert found[0]["input_ids"] == tokenizer("play the song")["input_ids"]
    batch = task.collate(found, 0)
    assert batch["labels"].tolist() == [[1, 0, 1], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_by_hand(smoothing: float) -> None:
    logits, labels = torch.tensor([[2.0, -1.0], [0.0, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    p = torch.sigmoid(logits.double())
    target = torch.where(labels == 1, 1 - smoothing / 2, smoothing / 2)
    expected = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    assert float(task.loss({"logits": logits}, {"labels": labels}, smoothing)) == pytest.approx(float(expected), rel=1e-6)


@settings(max_examples=40)
@given(arrays(np.float32, (7, 3), elements=st.floats(-4, 4, width=16)), arrays(np.int64, (7, 3), elements=st.integers(0, 1)))
def test_metrics_are_those_of_scikit_learn(logits: np.ndarray, target: np.ndarray) -> None:
    scores = scored(logits, target)
    said = logits > 0
    found = task.metrics(scores, LABELS)
    micro = sklearn.metrics.f1_score(target, said, average="micro", zero_division=0)
    assert found["micro_f1"] == pytest.approx(micro)
    if scores.weight.sum():
        assert scores.value.sum() / scores.weight.sum() == pytest.approx(micro), "what the gate decides is the micro-averaged F1"
    assert found["subset_accuracy"] == pytest.approx((said == target).all(-1).mean())
    chance = 1 / (1 + np.exp(-logits.astype(float)))
    expected = -(target * np.log(chance) + (1 - target) * np.log(1 - chance)).mean()
    assert found["log_loss"] == pytest.approx(expected)


def test_macro_f1_is_over_the_labels_that_the_rows_have() -> None:
    scores = scored([[1, 1, -1], [1, -1, -1]], [[1, 0, 0], [0, 1, 0]])
    assert task.metrics(scores, LABELS)["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    rows = task.report(scores, LABELS)
    assert [row["label"] for row in rows] == list(LABELS)
    assert rows[0] == {"label": "a", "precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1, "taken_for": None}
    assert rows[2]["support"] == 0


def test_the_gate_compares_micro_f1() -> None:
    chance = np.random.default_rng(0)
    target = chance.integers(0, 2, (200, 3))
    good = np.where(chance.random((200, 3)) < 0.9, target, 1 - target) * 2.0 - 1
    worse = np.where(chance.random((200, 3)) < 0.9, good, -good)
    base, candidate = scored(good, target), scored(worse, target)
    verdict = gate.decide(get("multi-label-classification"), base, candidate, 0.02)
    before, after = (task.metrics(one, LABELS)["micro_f1"] for one in (base, candidate))
    assert verdict.loss == pytest.approx(before - after)
    assert not verdict.passed(strict=False)
    assert gate.decide(get("multi-label-classification"), base, base, 0.02).proven


def test_thresholds_are_tuned_label_by_label() -> None:
    chance = np.random.default_rng(0)
    target = np.zeros((400, 3), dtype=int)
    target[:, 0] = np.arange(400) % 4 == 0
    target[:, 1] = np.arange(400) % 2
    target[:3, 2] = 1  # too rare
    offset = np.array([-3.0, 2.0, -3.0])  # where 0.5 is the wrong place
    logits = offset + 2.0 * (target - 0.5) + 0.3 * chance.normal(size=target.shape)
    scores = scored(logits, target)
    facts = task.calibrate(scores, asking(None))
    assert facts["thresholds"][0] == pytest.approx(1 / (1 + np.exp(3)), abs=0.04)
    assert facts["thresholds"][1] == pytest.approx(1 / (1 + np.exp(-2)), abs=0.06)
    assert facts["thresholds"][2] == 0.5
    assert "2 of 3 labels" in facts["chosen_by"]
    half, tuned = task.metrics(scores, LABELS), task.calibrated(scores, facts)
    assert half["micro_f1"] < 0.75 < 0.98 < tuned["micro_f1"]
    assert tuned.keys() == {"micro_f1", "macro_f1", "subset_accuracy"}


def test_no_threshold_gives_a_label_a_better_f1() -> None:
    chance = np.random.default_rng(1)
    target = chance.integers(0, 2, (60, 1))
    scores = scored(target + 1.5 * chance.normal(size=(60, 1)), target)
    [threshold] = task.calibrate(scores, asking(None))["thresholds"]
    assert scores.logits is not None
    ours = task.probabilities(scores.logits)
    best = max(sklearn.metrics.f1_score(target, ours >= cut) for cut in np.linspace(0, 1, 2001))
    assert sklearn.metrics.f1_score(target, ours >= threshold) == pytest.approx(best)


@pytest.mark.parametrize(("asked", "expected"), [(0.3, 0.3), (0.0, 0.5)])
def test_a_threshold_that_the_recipe_asks_for_is_taken(asked: float, expected: float) -> None:
    scores = scored([[1, 1, 1]] * 20, [[1, 0, 1]] * 20)
    assert task.calibrate(scores, asking(asked)) == {"thresholds": [expected] * 3, "chosen_by": "the recipe"}
