"""A tiny problem for the training loop, encoded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from edgetune.methods.device import Device
from edgetune.methods.loop import Problem, Settings, State, train
from edgetune.methods.model import forward
from edgetune.tasks import text_classification as task

SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "accumulation": 1,
    "learning_rate": 5e-3,
    "warmup": 0.1,
    "weight_decay": 0.01,
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "early_stopping": 0,
    "max_steps": 0,
    "checkpoint_every": 0,
    "seed": 0,
}


@dataclass(frozen=True)
class Toy:
    """`train` a fresh model in `scratch`; what differs from SETTINGS is given by name."""

    splits: dict[str, list[dict[str, Any]]]
    vocabulary: int
    device: Device = field(default_factory=lambda: Device("cpu", bf16=False))

    def model(self, dropout: float = 0.0) -> PreTrainedModel:
        torch.manual_seed(1)
        sizes = {**tiny.SIZES, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        return BertForSequenceClassification(
            BertConfig(vocab_size=self.vocabulary, num_labels=len(tiny.LABELS), initializer_range=0.1, **sizes)
        )

    def settings(self, **changes: Any) -> Settings:
        return Settings(**{**SETTINGS, **changes})

    def problem(self, evaluate: Callable[[PreTrainedModel], dict[str, float]] | None = None) -> Problem:
        def measured(model: PreTrainedModel) -> dict[str, float]:
            return task.metrics(task.score(forward(model), self.splits["validation"], 0), tiny.LABELS)

        return Problem(
            task,
            self.splits["train"],
            0,
            evaluate or measured,
            lambda found: (found["accuracy"], -found["log_loss"]),
            ("accuracy", "log_loss"),
        )

    def train(
        self, scratch: Path, *, model: PreTrainedModel | None = None, problem: Problem | None = None, dropout: float = 0.0, **changes: Any
    ) -> tuple[PreTrainedModel, State]:
        model = model or self.model(dropout)
        return model, train(model, problem or self.problem(), self.settings(**changes), self.device, scratch)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    torch.set_num_threads(1)
    tokenizer = tiny.tokenizer(tmp_path_factory.mktemp("words"))
    rows = [{"text": text, "label": label} for text, label in tiny.sentences(224)]
    examples = task.encode(rows, tokenizer, max_length=64, labels=tiny.LABELS).examples
    return Toy({"train": examples[:172], "validation": examples[172:]}, len(tokenizer))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    """Bit for bit."""
    other = b.state_dict()
    return all(torch.equal(weight, other[name]) for name, weight in a.state_dict().items())


@pytest.fixture(name="same")
def _same() -> Callable[[torch.nn.Module, torch.nn.Module], bool]:
    return same
