"""The training loop: AdamW, warm-up and linear decay, clipping, batches of like length, early stopping, exact resume."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.errors import StageError
from edgetune.methods import average, checkpoint, first_token, used_rows
from edgetune.methods.device import Device
from edgetune.methods.pace import Pace
from edgetune.tasks import inputs

COUNTED = 256  # rows at a time, when labels are counted
MEGABATCH = 64  # batches that are sorted by length together: short enough to stay random, long enough to save padding

Draw = Callable[[random.Random], list[int]]  # what draws the examples of an epoch, by their indices, as many as there are


class Diverged(StageError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Settings:
    """`AdaptKeys` with every zero resolved."""

    epochs: int
    batch_size: int
    accumulation: int
    learning_rate: float
    warmup: float
    weight_decay: float
    clip_norm: float
    label_smoothing: float
    early_stopping: int
    max_steps: int
    checkpoint_every: int
    seed: int
    averaged: bool = False  # the rate falls in each pass anew; what stays is the mean of the weights at their ends, all but the first


@dataclass
class State:
    """Where training stands; all of it is in a checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    best: tuple[float, float] | None = None
    waited: int = 0  # evaluations without gain
    loss: float = 0.0  # summed over the batches of this epoch
    parts: int = 1  # micro-batches per step; doubled when memory runs out
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Problem:
    """What is learned: examples, how they become batches, and how well a model does on validation (higher is better)."""

    task: Any  # has `collate` and `loss`, as the modules of `tasks` do, and perhaps `at(share of the training that is done)`
    examples: Sequence[Mapping[str, Any]]
    pad_id: int
    evaluate: Callable[[PreTrainedModel], Mapping[str, float]]
    better: Callable[[Mapping[str, float]], tuple[float, float]]  # the metric, then what decides between equals; higher is better
    shown: Sequence[str]  # the metrics that each epoch's line names
    drawn: Draw | None = None  # none: all of them
    tokens: Collection[int] | None = None  # ids that batches may have (none: any)

    @cached_property
    def labels_per_row(self) -> float:
        """How many labels a row is learned from, on average: 1 where it has one."""
        parts = [self.examples[at : at + COUNTED] for at in range(0, len(self.examples), COUNTED)]
        with torch.random.fork_rng(devices=[]):  # collate may draw
            learned = sum(int((self.task.collate(part, self.pad_id)["labels"] != -100).sum()) for part in parts)
        return learned / len(self.examples)


Stop = Callable[[State], bool]


def never(state: State) -> bool:
    return False


def train(
    model: PreTrainedModel,
    problem: Problem,
    settings: Settings,
    device: Device,
    scratch: Path,
    stop: Stop = never,
    pace: Pace = Pace(),  # noqa: B008 - frozen
) -> State:
    """Train the weights that require a gradient, in place and at their `pace`; on return they are those of the best evaluation, or, with
    `settings.averaged`, the mean.

    `scratch` keeps the last checkpoint and the best weights, so that a killed run goes on where it stood and ends the same.
    `stop` is asked before each epoch and ends the training. Nothing is done where no weight requires a gradient.
    Raises Diverged when the loss is no longer a number.
    """
    with used_rows.only(model, problem.tokens):
        weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        return _train(model, weights, problem, settings, device, scratch, stop, pace) if weights else State()


def _train(
    model: PreTrainedModel,
    weights: Mapping[str, torch.nn.Parameter],
    problem: Problem,
    settings: Settings,
    device: Device,
    scratch: Path,
    stop: Stop,
    pace: Pace,
) -> State:
    optimizer = _optimizer(weights, settings, pace)
    state = State(parts=settings.accumulation)
    epochs, total = _length(problem, settings)
    falls = math.ceil(total / epochs) if settings.averaged else total
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(step % falls if step < total else falls, falls, settings.warmup)
    )
    torch.manual_seed(settings.seed)
    if checkpoint.exists(scratch, weights):
        checkpoint.load(scratch, weights, optimizer, schedule, state)
        progress.note(f"resuming at step {state.step} of {total}")
    with progress.bar("training", total) as bar:
        bar.advance(state.step)
        while state.epoch < epochs and not _stopped(state, settings) and not stop(state):
            order = _order(problem.examples, settings, state.epoch, problem.drawn)
            model.train()
            for name, weight in weights.items():
                weight.requires_grad = pace.opens.get(name, 0) <= state.epoch
            for batch in order[state.batch :][: total - state.step]:
                if hasattr(problem.task, "at"):
                    problem.task.at(state.step / total)
                loss = _step(model, [problem.examples[i] for i in batch], problem, weights, optimizer, device, settings, state)
                schedule.step()
                state.step, state.batch, state.loss = state.step + 1, state.batch + 1, state.loss + loss
                bar.advance(1, f"loss {loss:.3f}")
                if not math.isfinite(loss):
                    raise Diverged(
                        f"the loss is {loss} at step {state.step}", mend="try a lower learning rate: --set adapt.learning_rate=..."
                    )
                if settings.checkpoint_every and state.step % settings.checkpoint_every == 0:
                    checkpoint.save(scratch, weights, optimizer, schedule, state)
            if settings.averaged and state.epoch:
                average.update(weights, optimizer, state.epoch - 1)
            with average.used(weights, optimizer):
                _evaluate(model, problem, weights, state, scratch, last=settings.averaged)
            state.epoch, state.batch, state.loss = state.epoch + 1, 0, 0.0
            checkpoint.save(scratch, weights, optimizer, schedule, state)
    checkpoint.load_best(scratch, weights)
    for weight in weights.values():
        weight.requires_grad = True
    return state


def _optimizer(weights: Mapping[str, torch.nn.Parameter], settings: Settings, pace: Pace = Pace()) -> torch.optim.AdamW:  # noqa: B008 - frozen
    """Decay on matrices only; biases and norms are left alone. A group of weights for each learning rate."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for decays in (True, False):
        for name, weight in weights.items():
            if (weight.ndim >= 2) == decays:
                groups.setdefault((pace.rates.get(name, 1.0), settings.weight_decay if decays else 0.0), []).append(weight)
    made = [{"params": some, "lr": settings.learning_rate * rate, "weight_decay": decay} for (rate, decay), some in groups.items()]
    return torch.optim.AdamW(made, lr=settings.learning_rate, fused=True)


def _length(problem: Problem, settings: Settings) -> tuple[int, int]:
    """Epochs and optimizer steps to go; `max_steps` cuts both."""
    per_epoch = math.ceil(len(problem.examples) / settings.batch_size)
    total = settings.epochs * per_epoch
    if settings.max_steps:
        total = min(total, settings.max_steps)
    return math.ceil(total / per_epoch), total


def _rate(step: int, total: int, warmup: float) -> float:
    rising = max(1, round(warmup * total))
    return (step + 1) / rising if step < rising else max(0.0, (total - step) / max(1, total - rising))


def _stopped(state: State, settings: Settings) -> bool:
    return bool(settings.early_stopping and state.waited >= settings.early_stopping)


def _order(examples: Sequence[Mapping[str, Any]], settings: Settings, epoch: int, drawn: Draw | None = None) -> list[list[int]]:
    """Batches of one epoch: shuffled, sorted by length within megabatches, shuffled again; the same for the same seed."""
    chance = random.Random(f"{settings.seed}/{epoch}")
    order = drawn(chance) if drawn else list(range(len(examples)))
    chance.shuffle(order)
    mega, size = MEGABATCH * settings.batch_size, settings.batch_size
    batches = []
    for start in range(0, len(order), mega):
        chunk = sorted(order[start : start + mega], key=lambda i: len(examples[i]["input_ids"]))
        batches += [chunk[at : at + size] for at in range(0, len(chunk), size)]
    chance.shuffle(batches)
    return batches


def _step(
    model: PreTrainedModel,
    rows: Sequence[Mapping[str, Any]],
    problem: Problem,
    weights: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    device: Device,
    settings: Settings,
    state: State,
) -> float:
    """One optimizer step; when memory runs out, the same rows in twice as many parts. Returns the mean loss."""
    while True:
        try:
            own = getattr(problem.task, "gradients", None)  # of a method that is more than a loss
            loss = own(model, rows, device) if own else _gradients(model, rows, problem, device, settings, state.parts)
            break
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            if state.parts >= len(rows):
                raise StageError(
                    "out of memory with one row at a time", mend="shorter rows: --set adapt.max_length=...; or method lora"
                ) from error
            state.parts *= 2
            optimizer.zero_grad(set_to_none=True)
            if device.name == "cuda":
                torch.cuda.empty_cache()
            progress.warn(
                f"out of memory: {math.ceil(settings.batch_size / state.parts)} rows at a time from here on, {state.parts} parts a step"
            )
    if settings.clip_norm:
        torch.nn.utils.clip_grad_norm_(list(weights.values()), settings.clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def _gradients(
    model: PreTrainedModel, rows: Sequence[Mapping[str, Any]], problem: Problem, device: Device, settings: Settings, parts: int
) -> float:
    """Add the gradient of the loss over `rows`, computed in `parts` parts.

    Every label counts the same, whatever batch it is in: the rows of a batch are of like length, so that a mean over each batch would make
    the labels of short rows count more than those of long ones.
    """
    size = math.ceil(len(rows) / parts)
    batches = [problem.task.collate(rows[at : at + size], problem.pad_id) for at in range(0, len(rows), size)]
    learned = [int((batch["labels"] != -100).sum()) for batch in batches]
    total = 0.0
    for arrays, count in zip(batches, learned, strict=True):
        batch = {name: torch.from_numpy(array).to(device.torch) for name, array in arrays.items()}
        with device.autocast(), device.attention(model, arrays["input_ids"].shape[-1]), first_token.only(model):
            outputs = model(**inputs(batch))
        loss = problem.task.loss(outputs, batch, settings.label_smoothing) * (count / (problem.labels_per_row * len(rows)))
        loss.backward()
        total += loss.item()
    return total


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _evaluate(
    model: PreTrainedModel, problem: Problem, weights: Mapping[str, torch.nn.Parameter], state: State, scratch: Path, last: bool
) -> None:
    """Keep `weights` where they are the best so far, or in any case: a mean of more ends is better than validation rows can tell."""
    model.eval()
    loss = state.loss / max(1, state.batch)
    found = dict(problem.evaluate(model))
    score = problem.better(found)
    state.history.append({"epoch": state.epoch + 1, "step": state.step, "train_loss": loss, "tie": score[1], **found})
    shown = ", ".join(f"{name.replace('_', ' ')} {found[name]:.4f}" for name in problem.shown)
    gained = state.best is None or score[0] > state.best[0] or score[1] > max(entry["tie"] for entry in state.history[:-1])
    state.waited = 0 if gained else state.waited + 1
    if last or state.best is None or score > tuple(state.best):
        state.best = score
        checkpoint.save_best(scratch, weights)
    progress.note(f"epoch {state.epoch + 1}: training loss {loss:.4f}; validation {shown}")
