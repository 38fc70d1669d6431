"""The loop learns, repeats itself bit for bit, goes on where it stood, and says when it cannot."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgetune import progress
from edgetune.errors import StageError
from edgetune.methods import checkpoint, loop
from edgetune.methods.device import Device
from edgetune.tasks import text_classification as task

Same = Callable[[torch.nn.Module, torch.nn.Module], bool]


class Killed(Exception):
    pass


def kill_at(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int) -> None:
    """The function `place.name` raises at its `call`-th call, after its work is done."""
    original, calls = getattr(place, name), iter(range(1, 10_000))

    def dying(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if next(calls) == call:
            raise Killed
        return result

    monkeypatch.setattr(place, name, dying)


def test_it_learns(toy: Any, tmp_path: Path) -> None:
    model, state = toy.train(tmp_path, epochs=4)
    losses = [entry["train_loss"] for entry in state.history]
    assert losses[0] == pytest.approx(math.log(4), rel=0.2), "an untrained model knows nothing"
    assert losses[-1] < 0.6 * losses[0]
    assert state.history[-1]["accuracy"] > 0.8
    assert [entry["step"] for entry in state.history] == [11, 22, 33, 44]
    assert toy.problem().evaluate(model)["accuracy"] == max(entry["accuracy"] for entry in state.history)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(toy: Any, tmp_path: Path, same: Same) -> None:
    (a, one), (b, two) = (toy.train(tmp_path / name, dropout=0.2) for name in "ab")
    assert same(a, b)
    assert one.history == two.history
    c, _ = toy.train(tmp_path / "c", dropout=0.2, seed=1)
    assert not same(a, c)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize(
    ("every", "call"), [(1, 3), (1, 13), (1, 23), (1, 24), (1, 35), (4, 3), (4, 5), (11, 1), (11, 2), (11, 3), (11, 4)]
)
def test_resumed_equals_uninterrupted(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same, every: int, call: int, averaged: bool
) -> None:
    """Killed right after a checkpoint, with dropout: within an epoch, at its last step before the evaluation, and after the evaluation."""
    whole, expected = toy.train(tmp_path / "whole", dropout=0.2, epochs=3, checkpoint_every=every, averaged=averaged)
    with monkeypatch.context() as patch:
        kill_at(patch, checkpoint, "save", call)
        with pytest.raises(Killed):
            toy.train(tmp_path / "killed", dropout=0.2, epochs=3, checkpoint_every=every, averaged=averaged)
    torch.manual_seed(99)
    resumed, state = toy.train(tmp_path / "killed", dropout=0.2, epochs=3, checkpoint_every=every, averaged=averaged)
    assert same(whole, resumed)
    assert state == dataclasses.replace(expected, best=state.best)
    assert tuple(state.best) == expected.best


@pytest.mark.parametrize(("place", "name", "call"), [(checkpoint, "save_best", 1), (loop, "_evaluate", 1), (loop, "_evaluate", 2)])
def test_killed_in_an_evaluation(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same, place: Any, name: str, call: int
) -> None:
    """The best weights are on disk, the checkpoint after them is not."""
    whole, expected = toy.train(tmp_path / "whole", dropout=0.2, epochs=2, checkpoint_every=4)
    with monkeypatch.context() as patch:
        kill_at(patch, place, name, call)
        with pytest.raises(Killed):
            toy.train(tmp_path / "killed", dropout=0.2, epochs=2, checkpoint_every=4)
    resumed, state = toy.train(tmp_path / "killed", dropout=0.2, epochs=2, checkpoint_every=4)
    assert same(whole, resumed)
    assert state.history == expected.history


def test_killed_after_the_last_step_before_its_evaluation(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same) -> None:
    """One epoch only: nothing has been evaluated yet when the kill comes."""
    whole, expected = toy.train(tmp_path / "whole", epochs=1, checkpoint_every=11)
    with monkeypatch.context() as patch:
        kill_at(patch, checkpoint, "save", 1)
        with pytest.raises(Killed):
            toy.train(tmp_path / "killed", epochs=1, checkpoint_every=11)
    resumed, state = toy.train(tmp_path / "killed", epochs=1, checkpoint_every=11)
    assert same(whole, resumed)
    assert state.history == expected.history
    assert len(state.history) == 1


def test_a_finished_training_is_not_done_again(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same) -> None:
    whole, expected = toy.train(tmp_path, epochs=2)
    monkeypatch.setattr(loop, "_step", lambda *_: pytest.fail("a step was taken"))
    again, state = toy.train(tmp_path, epochs=2)
    assert same(whole, again)
    assert state.history == expected.history


@pytest.mark.parametrize("parts", [2, 3, 16])
def test_parts_give_the_gradient_of_the_whole_batch(toy: Any, parts: int) -> None:
    """Also when the parts are of unequal size, and their rows of unequal length."""
    rows = toy.splits["train"][:16]

    def gradients(parts: int) -> tuple[float, list[torch.Tensor]]:
        model = toy.model()
        loss = loop._gradients(model, rows, toy.problem(), toy.device, toy.settings(), parts)
        return loss, [weight.grad for weight in model.parameters()]

    (whole, expected), (split, found) = gradients(1), gradients(parts)
    assert split == pytest.approx(whole, rel=1e-6)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_each_label_counts_the_same_in_short_rows_and_long_ones() -> None:
    """The gradients of two batches, one of short rows and one of long ones, add up to that of all their labels."""

    class Sum:
        def collate(self, examples: Any, pad_id: int) -> dict[str, np.ndarray]:
            longest = max(len(example["input_ids"]) for example in examples)
            labels = np.full((len(examples), longest), -100)
            for line, example in zip(labels, examples, strict=True):
                line[: len(example["input_ids"])] = example["input_ids"]
            return {"input_ids": labels, "labels": labels}

        def loss(self, outputs: Any, batch: Any, smoothing: float) -> torch.Tensor:
            learned: torch.Tensor = outputs["logits"][batch["labels"] != -100]
            return learned.mean()

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.weight * input_ids.float()}

    examples = [{"input_ids": [1]}, {"input_ids": [2]}, {"input_ids": [3] * 9}, {"input_ids": [4] * 9}]
    problem = loop.Problem(Sum(), examples, 0, lambda _: {}, lambda _: (0.0, 0.0), ())
    model: Any = Model()
    settings = loop.Settings(1, 2, 1, 1e-3, 0.1, 0.0, 1.0, 0.0, 0, 0, 0, 0)
    losses = [loop._gradients(model, part, problem, Device("cpu", False), settings, 1) for part in (examples[:2], examples[2:])]
    every = [value for example in examples for value in example["input_ids"]]
    assert np.mean(losses) == pytest.approx(np.mean(every))
    assert float(model.weight.grad) / 2 == pytest.approx(np.mean(every))


def test_accumulation_trains_the_same_model(toy: Any, tmp_path: Path) -> None:
    """AdamW turns rounding into whole steps where a gradient is all but zero, so the models agree in what they say."""
    _, whole = toy.train(tmp_path / "a", epochs=2, learning_rate=1e-3)
    _, split = toy.train(tmp_path / "b", epochs=2, learning_rate=1e-3, accumulation=4)
    assert split.parts == 4
    for a, b in zip(whole.history, split.history, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-3)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        torch.OutOfMemoryError("CUDA"),
    ],
)
def test_out_of_memory_halves_the_batch_and_says_so(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    sizes: list[int] = []

    def model_that_takes(rows: int) -> Any:
        model = toy.model()
        original = model.forward

        def forward(**batch: Any) -> Any:
            sizes.append(len(batch["input_ids"]))
            if model.training and len(batch["input_ids"]) > rows:
                raise error
            return original(**batch)

        monkeypatch.setattr(model, "forward", forward)
        return model

    with progress.collecting() as notes:
        _, state = toy.train(tmp_path / "a", model=model_that_takes(4), epochs=2, learning_rate=1e-3)
    assert [note for note in notes if "out of memory" in note] == [
        "out of memory: 8 rows at a time from here on, 2 parts a step",
        "out of memory: 4 rows at a time from here on, 4 parts a step",
    ]
    assert sizes[:3] == [16, 8, 4], "the same rows are tried again, in smaller parts"
    _, expected = toy.train(tmp_path / "b", epochs=2, learning_rate=1e-3)
    for a, b in zip(expected.history, state.history, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-3)
        assert b["accuracy"] == a["accuracy"]


def test_out_of_memory_with_a_single_row_is_an_error_that_helps(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy.model()

    def forward(**_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(StageError, match="one row at a time") as raised:
        toy.train(tmp_path, model=model)
    assert "adapt.max_length" in str(raised.value.mend)


def test_another_error_is_not_taken_for_lack_of_memory(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy.model()

    def forward(**_: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        toy.train(tmp_path, model=model)


def scripted(scores: list[float], seen: list[dict[str, torch.Tensor]]) -> Callable[[Any], dict[str, float]]:
    """An evaluation that gives these accuracies in turn, and keeps the weights that it saw."""
    given: Iterator[float] = iter(scores)

    def evaluate(model: Any) -> dict[str, float]:
        seen.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return {"accuracy": next(given), "log_loss": 1.0}

    return evaluate


def test_early_stopping_restores_the_best_weights(toy: Any, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    problem = toy.problem(scripted([0.5, 0.7, 0.6, 0.7, 0.9], seen))
    model, state = toy.train(tmp_path, problem=problem, epochs=5, early_stopping=2)
    assert [entry["accuracy"] for entry in state.history] == [0.5, 0.7, 0.6, 0.7], "two evaluations without gain"
    assert all(torch.equal(weight, seen[1][name]) for name, weight in model.state_dict().items()), "the first of equals"


def test_without_early_stopping_every_epoch_is_trained(toy: Any, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    model, state = toy.train(tmp_path, problem=toy.problem(scripted([0.9, 0.1, 0.2, 0.3], seen)), epochs=4)
    assert len(state.history) == 4
    assert all(torch.equal(weight, seen[0][name]) for name, weight in model.state_dict().items())


def test_equal_accuracy_is_decided_by_the_loss(toy: Any, tmp_path: Path) -> None:
    losses = iter([1.0, 0.8, 0.9])
    _, state = toy.train(tmp_path, problem=toy.problem(lambda _: {"accuracy": 0.5, "log_loss": next(losses)}), epochs=3, early_stopping=1)
    assert state.best == (0.5, -0.8)
    assert len(state.history) == 3, "a falling loss is a gain"


@pytest.mark.parametrize(("most", "epochs", "taken"), [(5, 1, 5), (11, 1, 11), (12, 2, 12), (100, 3, 33)])
def test_max_steps(toy: Any, tmp_path: Path, most: int, epochs: int, taken: int) -> None:
    _, state = toy.train(tmp_path, epochs=3, max_steps=most)
    assert state.step == taken
    assert len(state.history) == epochs, "the last step is evaluated too"


@pytest.mark.parametrize("steps", [1, 7])
def test_resumed_within_max_steps(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: Same, steps: int) -> None:
    whole, _ = toy.train(tmp_path / "whole", max_steps=12, checkpoint_every=1)
    with monkeypatch.context() as patch:
        kill_at(patch, checkpoint, "save", steps)
        with pytest.raises(Killed):
            toy.train(tmp_path / "killed", max_steps=12, checkpoint_every=1)
    resumed, state = toy.train(tmp_path / "killed", max_steps=12, checkpoint_every=1)
    assert state.step == 12
    assert same(whole, resumed)


def test_a_loss_that_is_no_number_stops_before_a_checkpoint(toy: Any, tmp_path: Path) -> None:
    model = toy.model()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(StageError, match="the loss is nan at step 1") as raised:
        toy.train(tmp_path, model=model, checkpoint_every=1)
    assert "learning_rate" in str(raised.value.mend)
    assert not checkpoint.exists(tmp_path, dict(toy.model().named_parameters()))


def test_batches_hold_every_row_once_and_are_of_like_length(toy: Any) -> None:
    settings, examples = toy.settings(), toy.splits["train"]
    order = loop._order(examples, settings, 0)
    assert sorted(i for batch in order for i in batch) == list(range(len(examples)))
    assert sorted({len(batch) for batch in order}) == [172 % 16, 16]
    longest = [max(len(examples[i]["input_ids"]) for i in batch) for batch in order]
    padding = sum(long * len(batch) for long, batch in zip(longest, order, strict=True)) / sum(len(e["input_ids"]) for e in examples)
    assert padding < 1.15, "rows of like length share a batch"
    assert longest != sorted(longest), "but batches come in any order"
    assert order == loop._order(examples, settings, 0)
    assert order != loop._order(examples, settings, 1)
    assert order != loop._order(examples, toy.settings(seed=1), 0)
    drawn = loop._order(examples, settings, 0, lambda chance: [0] * 100 + [1] * 72)
    assert sorted(i for batch in drawn for i in batch) == [0] * 100 + [1] * 72, "rows come as often as they are drawn"


def test_weight_decay_is_for_matrices(toy: Any) -> None:
    weights = dict(toy.model().named_parameters())
    decayed, kept = loop._optimizer(weights, toy.settings()).param_groups
    assert decayed["weight_decay"] == 0.01
    assert kept["weight_decay"] == 0
    assert {w.ndim for w in decayed["params"]} == {2}
    assert {w.ndim for w in kept["params"]} == {1}
    assert len(decayed["params"]) + len(kept["params"]) == len(weights)


def test_only_what_requires_a_gradient_changes(toy: Any, tmp_path: Path) -> None:
    before, model = toy.model(), toy.model()
    for name, weight in model.named_parameters():
        weight.requires_grad = name.startswith("classifier")
    toy.train(tmp_path, model=model, epochs=1)
    changed = {name for (name, a), b in zip(before.state_dict().items(), model.state_dict().values(), strict=True) if not torch.equal(a, b)}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_the_rate_rises_and_falls() -> None:
    rates = [loop._rate(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert rates[100] == 0
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert all(rate > 0 for rate in rates[:100])
    assert loop._rate(0, 10, 0.0) == 1


def test_gradients_are_clipped(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        grads = [w.grad for group in self.param_groups for w in group["params"]]
        norms.append(float(torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]))))
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    toy.train(tmp_path / "a", max_steps=3, clip_norm=0.01)
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)
    norms.clear()
    toy.train(tmp_path / "b", max_steps=3, clip_norm=0.0)
    assert min(norms) > 0.05


def test_the_loss_is_the_tasks(toy: Any) -> None:
    """With smoothing, as the task's own loss says it over the whole batch."""
    rows, model = toy.splits["train"][:16], toy.model()
    batch = {name: torch.from_numpy(array) for name, array in task.collate(rows, 0).items()}
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert loop._gradients(model, rows, toy.problem(), toy.device, toy.settings(), 1) == pytest.approx(
        task.loss({"logits": logits}, batch, 0.1).item()
    )
