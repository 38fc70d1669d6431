"""What is learned is the mean of the weights at the ends of passes; test_loop.py kills such a training too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgetune.methods import average, loop

Same = Callable[[torch.nn.Module, torch.nn.Module], bool]


def test_the_mean_is_of_every_weight_that_was_seen_and_is_used_for_a_while() -> None:
    weight, still = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.ones(2))
    weights = {"weight": weight, "still": still}
    optimizer = torch.optim.AdamW(weights.values(), lr=0.5, fused=True)
    seen: list[torch.Tensor] = []
    for averaged in range(4):
        weight.grad = torch.ones(3)
        optimizer.step()
        seen.append(weight.detach().clone())
        average.update(weights, optimizer, averaged)
    last = weight.detach().clone()
    with average.used(weights, optimizer):
        torch.testing.assert_close(weight.detach(), torch.stack(seen).mean(0))
        assert torch.equal(still.detach(), torch.ones(2)), "never trained, so it has no mean"
    assert torch.equal(weight.detach(), last)


def test_training_goes_on_from_its_own_weights_and_ends_with_the_mean_of_the_ends_of_passes(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    rates: list[float] = []
    step = loop._step

    def watched(model: Any, rows: Any, problem: Any, weights: Any, optimizer: Any, *others: Any) -> float:
        rates.append(optimizer.param_groups[0]["lr"])
        loss = step(model, rows, problem, weights, optimizer, *others)
        seen.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        return loss

    monkeypatch.setattr(loop, "_step", watched)
    problem = toy.problem(lambda model: {"accuracy": 0.5, "log_loss": float(len(seen))})  # the rows say that the first is the best
    model, state = toy.train(tmp_path, problem=problem, epochs=3, averaged=True)  # 11 steps each
    assert state.best == (0.5, -33.0)
    assert rates[11:22] == pytest.approx(rates[:11]) and rates[22:] == pytest.approx(rates[:11])
    assert rates[1] == max(rates) and rates[10] == pytest.approx(max(rates) / 10), "falls in each pass"
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), (seen[21][name] + seen[32][name]) / 2)


def test_one_pass_ends_as_it_is(toy: Any, tmp_path: Path, same: Same) -> None:
    one, _ = toy.train(tmp_path / "a", epochs=1, averaged=True)
    plain, _ = toy.train(tmp_path / "b", epochs=1)
    assert same(one, plain)
