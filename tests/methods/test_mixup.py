"""Mixup: what is mixed, with what share, and that scoring is left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from methods.conftest import Toy

from edgetune.methods import mixup
from edgetune.tasks import inputs
from edgetune.tasks import text_classification as task


def batch(toy: Toy, count: int = 6) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(array)) for name, array in task.collate(toy.splits["train"][:count], 0).items()}


def test_the_loss_is_that_of_both_labels_and_the_vectors_are_mixed(toy: Toy) -> None:
    model, given = toy.model().train(), batch(toy)
    seen: list[torch.Tensor] = []
    with mixup.mixed(task, model, 0.4, 0) as learns:
        embeddings = model.get_input_embeddings()
        watch = embeddings.register_forward_hook(lambda module, ids, vectors: seen.append(vectors))
        torch.manual_seed(3)
        outputs = model(**inputs(given))
        watch.remove()
        share, order = learns._drawn or (None, None)
        assert share is not None and order is not None and 0.5 <= float(share) <= 1
        loss = learns.loss(outputs, given, 0.1)
    first = task.loss(outputs, given, 0.1)
    second = task.loss(outputs, {**given, "labels": given["labels"][order]}, 0.1)
    assert loss.item() == pytest.approx((share * first + (1 - share) * second).item())
    plain, ids = embeddings.weight[given["input_ids"]], given["input_ids"]
    for row, other in enumerate(order.tolist()):
        for at in range(ids.shape[1]):
            there = ids[other, at] != 0
            wanted = share * plain[row, at] + (1 - share) * plain[other, at] if there else plain[row, at]
            assert torch.allclose(seen[0][row, at], wanted, atol=1e-6)


def test_scoring_is_left_alone_and_the_hook_goes(toy: Toy) -> None:
    model, given = toy.model(), batch(toy)
    model.eval()
    before = model(**inputs(given)).logits
    with mixup.mixed(task, model, 0.4, 0):
        assert torch.equal(model(**inputs(given)).logits, before)
    model.train()
    assert torch.allclose(model(**inputs(given)).logits, before, atol=1e-6), "it still mixes"
