"""Weights of classes against scikit-learn's, and losses against batches in which the rows of a rare class stand more than once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from edgetune import tasks
from edgetune.tasks import TASKS, balance

LABELS = ["a", "b", "c"]
TAGS = ["intent:x", "intent:y", "O", "B-a", "I-a"]
LOGITS = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0))  # rows, tokens, classes


def test_weights_are_scikit_learns() -> None:
    rows = np.array([0] * 8 + [1] * 3 + [3])
    found = balance.weights(rows, 5)
    assert found[[0, 1, 3]] == pytest.approx(compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=rows))
    assert found[2] == found[4] == 1
    assert found[rows].mean() == pytest.approx(1)
    totals = {label: found[label] * (rows == label).sum() for label in (0, 1, 3)}
    assert len({round(total, 4) for total in totals.values()}) == 1, "each class counts the same"


def examples_of_tags() -> list[dict[str, Any]]:
    rows = [[-100, 0, 0, 1], [-100, 0, 2, -100], [0, 0, 0, 0], [1, 2, 0, -100], [-100, 0, 0, 0], [0, 1, 0, 0]]
    return [{"labels": row, "names": TAGS[2:], "intent": i % 3 // 2} for i, row in enumerate(rows)]


def single() -> tuple[str, list[dict[str, Any]], list[str], Mapping[str, Any], Mapping[str, Any]]:
    labels = [0, 0, 0, 1, 0, 2]
    return (
        "text-classification",
        [{"label": label} for label in labels],
        LABELS,
        {"logits": LOGITS[:, 0, :3]},
        {"labels": torch.tensor(labels)},
    )


def tagged() -> tuple[str, list[dict[str, Any]], list[str], Mapping[str, Any], Mapping[str, Any]]:
    rows = examples_of_tags()
    return "token-classification", rows, TAGS[2:], {"logits": LOGITS[..., :3]}, {"labels": torch.tensor([row["labels"] for row in rows])}


def expected(logits: torch.Tensor, labels: torch.Tensor, weights: np.ndarray, smoothing: float) -> float:
    """By hand: each row's smoothed cross-entropy times the weight of its class; the mean over rows."""
    flat, target = logits.double().reshape(-1, logits.shape[-1]), labels.flatten()
    flat, target = flat[target >= 0], target[target >= 0]
    log_p = flat.log_softmax(-1)
    nll = -log_p[torch.arange(len(target)), target]
    each = (1 - smoothing) * nll - smoothing * log_p.mean(-1)
    return float((each * torch.from_numpy(weights.astype(np.float64))[target]).mean())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("made", [single, tagged])
def test_a_row_counts_as_its_class_is_rare(made: Callable[[], Any], smoothing: float) -> None:
    name, rows, labels, outputs, batch = made()
    learner = balance.Balanced(tasks.get(name).module, rows, labels)
    [weights] = learner.weights
    assert weights.max() > weights.min()
    found = learner.loss(outputs, batch, smoothing).item()
    assert found == pytest.approx(expected(outputs["logits"], batch["labels"], weights, smoothing), rel=1e-5)
    plain = tasks.get(name).module.loss(outputs, batch, smoothing).item()
    assert plain == pytest.approx(expected(outputs["logits"], batch["labels"], np.ones(3), smoothing), rel=1e-5) != found


def test_both_heads_have_weights_of_their_own() -> None:
    rows = examples_of_tags()
    module = tasks.get("intent-and-slots").module
    learner = balance.Balanced(module, rows, TAGS)
    of_intents, of_tags = learner.weights
    assert (len(of_intents), len(of_tags)) == (2, 3)
    outputs = {"logits": LOGITS[:, 0, :2], "slot_logits": LOGITS[..., :3]}
    batch = {"labels": torch.tensor([row["labels"] for row in rows]), "intents": torch.tensor([row["intent"] for row in rows])}
    parts = (outputs["logits"], batch["intents"], of_intents), (outputs["slot_logits"], batch["labels"], of_tags)
    assert learner.loss(outputs, batch, 0.1).item() == pytest.approx(sum(expected(*part, 0.1) for part in parts), rel=1e-5)


def test_out_of_scope_weighs_one() -> None:
    module = tasks.get("text-classification").module
    rows = [{"label": label} for label in (0, 0, 0, 1, -1)]
    [weights] = module.weights(rows, LABELS)
    assert weights.tolist() == pytest.approx([4 / 6, 2, 1])
    one, logits = torch.tensor([-1]), {"logits": LOGITS[:1, 0, :3]}
    assert module.loss(logits, {"labels": one}, 0.0, (weights,)) == module.loss(logits, {"labels": one})


def test_yes_and_no_of_a_label_count_the_same() -> None:
    module = tasks.get("multi-label-classification").module
    targets = [[1, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1]]
    learner = balance.Balanced(module, [{"target": target} for target in targets], LABELS)
    labels = torch.tensor(targets)
    without, having = learner.weights
    assert having[:2].tolist() == pytest.approx([2, 2]) and without[:2].tolist() == pytest.approx([4 / 6, 4 / 6])
    assert having[2] == without[2] == 1, "nothing to balance"
    logits = LOGITS[:4, 0, :3]
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    weighted = each * torch.where(labels > 0, torch.from_numpy(having), torch.from_numpy(without))
    assert learner.loss({"logits": logits}, {"labels": labels}).item() == pytest.approx(weighted.mean().item())


def test_every_task_with_classes_has_weights() -> None:
    assert {name for name, task in TASKS.items() if hasattr(task.module, "weights")} == {
        name for name, task in TASKS.items() if task.labelled
    }
