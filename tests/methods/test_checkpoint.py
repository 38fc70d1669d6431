"""Checkpoints: whole or not there at all, and everything that training needs is in them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from edgetune import progress
from edgetune.methods import checkpoint, loop

WEIGHTS = dict(torch.nn.Linear(4, 3).named_parameters())


class Trained:
    """A small model that has taken some steps."""

    def __init__(self, steps: int = 0) -> None:
        torch.manual_seed(steps)
        self.weights = dict(torch.nn.Linear(4, 3).named_parameters())
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=0.1, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (1 + step))
        self.state = loop.State(best=None)
        for _ in range(steps):
            self.step()

    def step(self) -> None:
        for weight in self.weights.values():
            weight.grad = torch.randn_like(weight)
        self.optimizer.step()
        self.schedule.step()
        self.state.step += 1

    def parts(self) -> tuple[Any, ...]:
        return self.weights, self.optimizer, self.schedule, self.state


def equal(a: Trained, b: Trained) -> bool:
    return all(torch.equal(weight, b.weights[name]) for name, weight in a.weights.items())


def test_everything_comes_back(tmp_path: Path) -> None:
    one = Trained(3)
    one.state.best, one.state.history = (0.5, -1.25), [{"epoch": 1, "accuracy": 0.1 + 0.2}]
    checkpoint.save(tmp_path, *one.parts())
    ahead = torch.randn(3)
    torch.manual_seed(5)
    two = Trained()
    assert checkpoint.exists(tmp_path, WEIGHTS)
    checkpoint.load(tmp_path, *two.parts())
    assert torch.equal(torch.randn(3), ahead), "the random state too"
    assert equal(one, two)
    assert two.optimizer.param_groups[0]["lr"] == one.optimizer.param_groups[0]["lr"]
    assert (two.state.step, tuple(two.state.best or ()), two.state.history) == (3, one.state.best, one.state.history)
    torch.manual_seed(7)
    one.step()
    torch.manual_seed(7)
    two.step()
    assert equal(one, two), "moments and rate too"


@pytest.mark.parametrize("call", [1, 2, 3])
def test_killed_at_a_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """1: the first checkpoint is in place. 2: the old one is out of the way, and 3: the new one in its place."""
    one, calls, original = Trained(1), iter(range(1, 10)), os.replace

    def dying(*arguments: Any) -> None:
        original(*arguments)
        if next(calls) == call:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", dying)
        checkpoint.save(tmp_path, *one.parts())
        one.step()
        checkpoint.save(tmp_path, *one.parts())
    two = Trained()
    assert checkpoint.exists(tmp_path, WEIGHTS)
    checkpoint.load(tmp_path, *two.parts())
    assert two.state.step == (1 if call < 3 else 2)
    checkpoint.save(tmp_path, *two.parts())
    assert checkpoint.exists(tmp_path, WEIGHTS)


def test_killed_while_it_was_written(tmp_path: Path) -> None:
    one = Trained(1)
    assert not checkpoint.exists(tmp_path, WEIGHTS)
    (tmp_path / "checkpoint.new").mkdir()
    (tmp_path / "checkpoint.new" / "weights.safetensors").touch()
    assert not checkpoint.exists(tmp_path, WEIGHTS)
    checkpoint.save(tmp_path, *one.parts())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize(
    "name", ["checkpoint/weights.safetensors", "checkpoint/optimizer.safetensors", "checkpoint/state.json", "best.safetensors"]
)
@pytest.mark.parametrize("damage", ["cut", "emptied"])
def test_a_damaged_checkpoint_is_told_and_not_used(tmp_path: Path, name: str, damage: str) -> None:
    one = Trained(1)
    checkpoint.save_best(tmp_path, one.weights)
    checkpoint.save(tmp_path, *one.parts())
    assert checkpoint.exists(tmp_path, WEIGHTS)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) - 1 if damage == "cut" else 0])
    with progress.collecting() as notes:
        assert not checkpoint.exists(tmp_path, WEIGHTS)
    assert "cannot be used" in notes[0]
    checkpoint.save_best(tmp_path, one.weights)
    checkpoint.save(tmp_path, *one.parts())
    assert checkpoint.exists(tmp_path, WEIGHTS)


def test_a_checkpoint_of_other_weights_is_told_and_not_used(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, *Trained(1).parts())
    for others in (torch.nn.Linear(5, 3), torch.nn.Linear(4, 3, bias=False)):
        with progress.collecting() as notes:
            assert not checkpoint.exists(tmp_path, dict(others.named_parameters()))
        assert "other weights" in notes[0]


@pytest.mark.parametrize("lost", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_that_lost_a_file(tmp_path: Path, lost: str) -> None:
    checkpoint.save(tmp_path, *Trained(1).parts())
    (tmp_path / "checkpoint" / lost).unlink()
    assert not checkpoint.exists(tmp_path, WEIGHTS)


def test_training_begins_anew_after_damage(toy: Any, tmp_path: Path, same: Any) -> None:
    whole, _ = toy.train(tmp_path, epochs=2)
    path = tmp_path / "checkpoint" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    again, state = toy.train(tmp_path, epochs=2)
    assert same(whole, again)
    assert len(state.history) == 2


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    one = Trained(2)
    checkpoint.save_best(tmp_path, one.weights)
    two = Trained()
    checkpoint.load_best(tmp_path, two.weights)
    assert equal(one, two)
    assert [path.name for path in tmp_path.iterdir()] == ["best.safetensors"]


def test_nothing_on_disk_is_a_pickle(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, *Trained(1).parts())
    assert sorted(path.suffix for path in (tmp_path / "checkpoint").iterdir()) == [".json", ".safetensors", ".safetensors"]
    assert json.loads((tmp_path / "checkpoint" / "state.json").read_text())["state"]["step"] == 1
