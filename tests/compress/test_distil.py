"""A student learns the teacher's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from scipy.special import log_softmax

from edgetune.compress import distil, shrink
from edgetune.methods import imitation, loop
from edgetune.methods.device import Device
from edgetune.methods.model import forward
from edgetune.tasks import padded

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50, "num_labels": 5}
CPU = Device("cpu", False)


@pytest.fixture(scope="module")
def teacher() -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, initializer_range=0.5)).eval()


@pytest.fixture(scope="module")
def examples() -> list[dict[str, list[int]]]:
    chance = np.random.default_rng(0)
    return [{"input_ids": chance.integers(1, 50, int(chance.integers(2, 9))).tolist()} for _ in range(200)]


def answers(model: torch.nn.Module, examples: list[dict[str, list[int]]]) -> np.ndarray:
    return np.concatenate([forward(model.eval())(padded([e], 0))["logits"] for e in examples])


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    a, b = log_softmax(theirs, -1), log_softmax(ours, -1)
    return float((np.exp(a) * (a - b)).sum(-1).mean())


def test_the_teachers_answers_are_in_the_rows_own_order(teacher: torch.nn.Module, examples: list[dict[str, list[int]]]) -> None:
    np.testing.assert_allclose(imitation.teach(teacher, examples, "logits", 0, CPU), answers(teacher, examples), atol=1e-5)


def test_the_loss_is_the_divergence_at_a_temperature() -> None:
    chance = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(4, 5, generator=chance), torch.randn(4, 5, generator=chance)
    task = imitation.Imitation("logits", "classes", 2.0)
    found = task.loss({"logits": ours}, {"teacher": theirs})
    assert float(found) == pytest.approx(4 * distance(ours.numpy() / 2, theirs.numpy() / 2), rel=1e-5)
    assert float(task.loss({"logits": theirs}, {"teacher": theirs})) == pytest.approx(0, abs=1e-6)


def test_the_loss_of_labels_that_stand_alone_is_that_of_a_yes_and_a_no_each() -> None:
    chance = torch.Generator().manual_seed(0)
    ours, theirs = torch.randn(4, 3, generator=chance), torch.randn(4, 3, generator=chance)
    pairs = [np.stack([values.numpy().ravel(), np.zeros(12)], -1) for values in (ours, theirs)]
    found = imitation.Imitation("logits", "labels", 2.0).loss({"logits": ours}, {"teacher": theirs})
    assert float(found) == pytest.approx(4 * distance(pairs[0] / 2, pairs[1] / 2), rel=1e-5)


def test_the_loss_of_vectors_is_their_squared_distance() -> None:
    ours, theirs = torch.eye(3), torch.eye(3).flip(0)
    task = imitation.Imitation("sentence_embedding", "numbers", 2.0)
    assert float(task.loss({"sentence_embedding": ours}, {"teacher": theirs})) == pytest.approx(2 * 2 / 3)


def test_a_student_comes_nearer(teacher: transformers.PreTrainedModel, examples: list[dict[str, list[int]]], tmp_path: Path) -> None:
    logits = imitation.teach(teacher, examples, "logits", 0, CPU)
    student = shrink.shrink(teacher, 2, 16)
    before = distance(answers(student, examples), logits)
    seen: list[float] = []

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        seen.append(-distance(answers(model, examples), logits))
        return {"nearness": seen[-1], "loss": 0.0}

    settings = loop.Settings(10, 16, 1, 5e-3, 0.1, 0.0, 1.0, 0.0, 0, 0, 0, 0)
    state = distil.distil(
        student,
        examples,
        logits,
        imitation.Imitation("logits", "classes", 2.0),
        0,
        evaluate,
        lambda f: (f["nearness"], 0.0),
        ("nearness",),
        settings,
        CPU,
        tmp_path,
    )
    assert state.step == 130
    assert distance(answers(student, examples), logits) < before / 3
    assert -max(seen) == pytest.approx(distance(answers(student, examples), logits), abs=1e-4), "the best pass is what stays"
