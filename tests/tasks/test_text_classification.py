"""Encoding, loss and metrics, each against a computation by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgetune.tasks import Scores, batches, pad
from edgetune.tasks import text_classification as task

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.tokenizer(tmp_path_factory.mktemp("words"))


def scores(logits: list[list[float]], target: list[int]) -> Scores:
    answers, wanted = np.array(logits, dtype=np.float32), np.array(target)
    known = wanted != task.OUT_OF_SCOPE
    return Scores((known & (answers.argmax(-1) == wanted)).astype(float), known.astype(float), answers, wanted)


def test_encode(tokenizer: Any) -> None:
    rows = [{"text": "play the song", "label": "b"}, {"text": "giraffe tax", "label": "out_of_scope"}, {"text": "lamp " * 30, "label": "a"}]
    encoded = task.encode(rows, tokenizer, max_length=16, labels=LABELS)
    assert [example["label"] for example in encoded.examples] == [1, task.OUT_OF_SCOPE, 0]
    assert encoded.examples[0]["input_ids"] == tokenizer("play the song")["input_ids"]
    assert len(encoded.examples[2]["input_ids"]) == 16
    assert encoded.examples[2]["input_ids"][-1] == tokenizer.sep_token_id, "cut before the end mark"
    assert encoded.cut == 1
    assert task.encode([], tokenizer, max_length=16, labels=LABELS).examples == []


def test_collate_pads_on_the_right() -> None:
    batch = task.collate([{"input_ids": [2, 5, 3], "label": 1}, {"input_ids": [2, 3], "label": -1}], 9)
    assert batch["input_ids"].tolist() == [[2, 5, 3], [2, 3, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [1, -1]
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_by_hand(smoothing: float) -> None:
    """In scope: -sum over labels of the smoothed target times log p; out of scope: the target is the uniform distribution."""
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0], [1.0, 1.0, 1.0]])
    labels = torch.tensor([0, task.OUT_OF_SCOPE, 2])
    log_p = logits.double() - torch.log(torch.exp(logits.double()).sum(-1, keepdim=True))
    target = torch.full((3, 3), 1 / 3, dtype=torch.double)
    target[0] = smoothing / 3
    target[0, 0] += 1 - smoothing
    target[2] = smoothing / 3
    target[2, 2] += 1 - smoothing
    expected = -(target * log_p).sum(-1).mean()
    assert float(task.loss({"logits": logits}, {"labels": labels}, smoothing)) == pytest.approx(float(expected), rel=1e-6)


def test_nothing_is_gained_on_rows_out_of_scope_by_being_sure() -> None:
    sure, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    batch = {"labels": torch.tensor([task.OUT_OF_SCOPE])}
    assert task.loss({"logits": unsure}, batch) < task.loss({"logits": sure}, batch)


def test_loss_of_bfloat16_logits_is_float32() -> None:
    assert task.loss({"logits": torch.zeros(1, 3, dtype=torch.bfloat16)}, {"labels": torch.tensor([1])}).dtype == torch.float32


@pytest.mark.parametrize("size", [1, 2, 64])
def test_scores_are_in_the_order_of_the_rows(size: int) -> None:
    """Rows are scored by length; the answer to a row must find its way back."""
    examples = [{"input_ids": [i] * n, "label": i % 3} for i, n in enumerate((5, 1, 9, 2, 2, 7))]

    def forward(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        assert len(given["input_ids"]) <= size
        return {"logits": np.eye(3, dtype=np.float32)[given["input_ids"][:, 0] % 3] * given["attention_mask"].sum(-1, keepdims=True)}

    found = task.score(forward, examples, 0, size)
    assert found.logits is not None and found.target is not None
    assert found.logits.max(-1).tolist() == [5, 1, 9, 2, 2, 7]
    assert found.value.tolist() == [1.0] * 6
    assert found.target.tolist() == [0, 1, 2, 0, 1, 2]


def test_rows_out_of_scope_count_for_nothing() -> None:
    examples = [{"input_ids": [1], "label": 0}, {"input_ids": [2], "label": task.OUT_OF_SCOPE}, {"input_ids": [3], "label": 1}]
    found = task.score(lambda given: {"logits": np.tile(np.float32([3, 0, 0]), (len(given["input_ids"]), 1))}, examples, 0)
    assert found.value.tolist() == [1, 0, 0]
    assert found.weight.tolist() == [1, 0, 1]
    assert task.metrics(found, LABELS)["accuracy"] == 0.5


def test_metrics_by_hand() -> None:
    found = task.metrics(scores([[2, 0, 0], [2, 0, 0], [0, 2, 0], [0, 2, 0], [9, 0, 0]], [0, 1, 1, 1, task.OUT_OF_SCOPE]), LABELS)
    sure = float(np.exp(2) / (np.exp(2) + 2))
    unsure = float(1 / (np.exp(2) + 2))
    assert found["accuracy"] == 0.75
    assert found["worst_recall"] == pytest.approx(2 / 3)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2), "over the labels that the rows have"
    assert found["log_loss"] == pytest.approx(-(3 * np.log(sure) + np.log(unsure)) / 4)
    assert set(found) == {"accuracy", "macro_f1", "worst_recall", "log_loss"}


def test_report_names_what_a_label_is_taken_for() -> None:
    rows = task.report(scores([[2, 0, 0], [2, 0, 0], [0, 2, 0], [0, 0, 2]], [0, 1, 1, 1]), LABELS)
    assert [row["label"] for row in rows] == list(LABELS)
    assert rows[1] == {
        "label": "b",
        "precision": 1.0,
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(0.5),
        "support": 3,
        "taken_for": "a",
    }
    assert rows[0]["precision"] == 0.5
    assert rows[0]["taken_for"] is None
    assert rows[2]["support"] == 0


def test_softmax() -> None:
    huge = np.array([[1000.0, 999.0]], dtype=np.float32)
    assert task.softmax(huge)[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert task.softmax(huge, 1e3)[0, 0] == pytest.approx(1 / (1 + np.exp(-1e-3)))
    assert task.softmax(huge).dtype == np.float64


def test_batches_and_padding() -> None:
    examples = [{"input_ids": [0] * n} for n in (3, 1, 2, 5, 4)]
    assert batches(examples, 2) == [[1, 2], [0, 4], [3]]
    assert pad([[1], [2, 3]], 7).tolist() == [[1, 7], [2, 3]]
