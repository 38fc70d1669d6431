"""A labelled source, and texts without labels of the target domain: the features of the two are made alike while the labels are learned.

To the loss of the labelled rows comes, at a strength that rises from 0 to its full value, how unlike the features of as many target texts are:

dann   whether a classifier tells the domains apart, by reversed gradients (Ganin et al., arXiv:1505.07818; the rise is theirs too)
coral  the squared distance of the two covariances, for their size (Sun and Saenko, arXiv:1607.01719)
mmd    the maximum mean discrepancy, with Gaussian kernels of several widths (Long et al., arXiv:1502.02791; Gretton et al. 2012)

Features are what the last layer of the head reads. A batch of source rows gets target texts of the same rank in length, so that padding does
not grow and length tells no domain. What is left is the plain classifier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.data import unlabelled
from edgetune.errors import ModelError, RecipeError
from edgetune.methods import Lesson, heads
from edgetune.methods.full import merge, restore
from edgetune.methods.model import load_base
from edgetune.recipe import Recipe
from edgetune.sections import DomainKeys
from edgetune.tasks import balance, tokens

__all__ = ["attach", "merge", "restore", "save", "training"]

KEY = "domain.unlabelled"
CLASSIFIER = "domain_classifier"  # of the model, while it is trained
HIDDEN = 100  # units of it
STEEP = 10.0  # how fast the strength rises
SPREAD = 0.05  # of the target texts, by length, that one row's partner is drawn from
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels, in mean squared distances

Outputs = Mapping[str, torch.Tensor]


def _told_apart(outputs: Outputs, known: int) -> torch.Tensor:
    """Cross-entropy of the domain classifier; its gradient is reversed before it reaches the features."""
    logits = outputs["domain_logits"].float().squeeze(-1)
    domains = (torch.arange(len(logits), device=logits.device) >= known).to(logits.dtype)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, domains)


def _covariances(outputs: Outputs, known: int) -> torch.Tensor:
    """||C_S - C_T||^2 / (||C_S|| ||C_T||) of the features [b, d]: divided by their size in the place of 4 d^2, so that the same strength fits
    every base (MiniLM's features would give 1e-7). The size has a gradient too: without it, small features are the way to a small distance."""
    features = outputs["features"].float()
    if known < 2:
        return features.sum() * 0  # one row has no covariance
    source, target = torch.cov(features[:known].T), torch.cov(features[known:].T)
    return (source - target).square().sum() / (source.norm() * target.norm()).clamp(min=1e-12)


def _means(outputs: Outputs, known: int) -> torch.Tensor:
    """The squared maximum mean discrepancy of the features [b, d], the mean over kernels."""
    features = outputs["features"].float()
    distances = (features[:, None] - features[None, :]).square().sum(-1)
    width = distances.detach().mean().clamp(min=1e-6)
    kernels = torch.stack([(-distances / (factor * width)).exp() for factor in WIDTHS]).mean(0)
    return kernels[:known, :known].mean() + kernels[known:, known:].mean() - 2 * kernels[:known, known:].mean()


# How unlike the domains are, and how strongly that counts when the recipe does not say.
DISTANCES: dict[str, tuple[Callable[[Outputs, int], torch.Tensor], float]] = {
    "dann": (_told_apart, 0.1),
    "coral": (_covariances, 0.02),
    "mmd": (_means, 1.0),
}


def check(recipe: Recipe) -> None:
    """Raises RecipeError or DataError for target texts that are not there, that have labels, or that nobody reads."""
    if recipe.method in DISTANCES:
        if not recipe.domain.unlabelled:
            raise RecipeError(
                f"method {recipe.method} needs texts of the target domain, without labels",
                mend="--domain-unlabelled FILE; or --method full, which learns the source alone",
            )
        if "self-training" in recipe.augment.kinds:
            raise RecipeError(
                f"method {recipe.method} and self-training both learn from texts without labels",
                mend="choose one: leave self-training out of --augment",
            )
        with progress.silent():  # they are told when they are learned from
            unlabelled.texts(recipe, KEY)
    elif recipe.domain != DomainKeys():
        named = ", ".join(key for key, value in recipe.domain if value != getattr(DomainKeys(), key))
        raise RecipeError(
            f"[domain] {named} is given, but method {recipe.method} reads no target texts", mend=f"choose one of: {', '.join(DISTANCES)}"
        )


def alone(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The same training without target texts, by the resolved `settings` (see `loop.Settings`): what adaptation has to beat."""
    plain = Recipe()
    told = {name: settings[name] for name in ("epochs", "batch_size", "learning_rate", "label_smoothing")}
    adapt = recipe.adapt.model_copy(update={**told, "baselines": False})
    return recipe.model_copy(update={"method": "full", "domain": plain.domain, "search": plain.search, "adapt": adapt})


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base with the task's head; while it is trained its outputs have `features` [b, d], and `domain_logits` [b, 1] for dann."""
    model = load_base(recipe, labels)
    lines = [module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and heads([name])]
    if not lines:
        raise ModelError(f"{type(model).__name__} has no head whose features could be made alike", mend="--method full")
    if recipe.method == "dann":
        layers = (torch.nn.Linear(lines[-1].in_features, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1))
        model.add_module(CLASSIFIER, torch.nn.Sequential(*layers))
    read: dict[str, torch.Tensor] = {}

    def remember(line: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        read["features"] = given[0]

    def tell(model: torch.nn.Module, given: Any, outputs: Any) -> Any:
        if model.training:
            outputs["features"] = features = read.pop("features")
            if classifier := model._modules.get(CLASSIFIER):
                outputs["domain_logits"] = classifier(2 * features.detach() - features)  # its value, and its gradient reversed
        return outputs

    lines[-1].register_forward_pre_hook(remember)
    model.register_forward_hook(tell)
    return model


def save(model: PreTrainedModel, folder: Path) -> None:
    """Everything but the domain classifier."""
    model._modules.pop(CLASSIFIER, None)
    model.save_pretrained(folder, safe_serialization=True)


def training(lesson: Lesson) -> Domains:
    """What learns in the task's place. Raises RecipeError for pairs of texts."""
    if "text_pair" in lesson.task.asks:
        raise RecipeError(f"{KEY} holds plain texts, but this model reads pairs of texts", mend="--method full")
    texts = unlabelled.texts(lesson.recipe, KEY)
    target, cut = tokens(lesson.tokenizer, texts, max_length=lesson.max_length)
    if cut:
        progress.warn(f"{KEY}: {cut:,} of {len(target):,} texts are longer than {lesson.max_length} tokens and were cut (adapt.max_length)")
    return Domains(lesson, target)


class Domains:
    """`examples`: the labelled rows of the source, each with its `place` in the order of lengths, from 0 to 1."""

    unit = "labelled rows"

    def __init__(self, lesson: Lesson, target: Sequence[Mapping[str, Any]]) -> None:
        recipe, module = lesson.recipe, lesson.task.module
        self._distance, usual = DISTANCES[recipe.method]
        self._strength, self._now = usual if recipe.domain.strength is None else recipe.domain.strength, 0.0
        order = np.argsort([len(row["input_ids"]) for row in lesson.examples], kind="stable")
        places = {int(i): (rank + 0.5) / len(order) for rank, i in enumerate(order)}
        self.examples = [{**row, "place": places[i]} for i, row in enumerate(lesson.examples)]
        self.target = sorted(target, key=lambda row: len(row["input_ids"]))
        balanced = recipe.adapt.class_weights == balance.BALANCED
        self._task = balance.Balanced(module, lesson.examples, lesson.labels) if balanced else module
        self.score = module.score
        progress.note(f"{len(target):,} target texts; {recipe.method} with strength {self._strength:g}, rising from 0")

    def at(self, share: float) -> None:
        """`share` of the training is done."""
        self._now = self._strength * (2 / (1 + math.exp(-STEEP * share)) - 1)

    def collate(self, examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
        """The rows and as many target texts after them [2 b, s]; the labels of these are -100."""
        shift = SPREAD * (torch.rand(len(examples)).numpy() - 0.5)
        places = np.clip(np.array([row["place"] for row in examples]) + shift, 0, 1) * len(self.target)
        partners = [self.target[min(int(place), len(self.target) - 1)] for place in places]
        batch: dict[str, np.ndarray] = self._task.collate([*examples, *({**row, "label": -100} for row in partners)], pad_id)
        return batch

    def loss(self, outputs: Outputs, batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        known = len(batch["labels"]) // 2
        own: torch.Tensor = self._task.loss({"logits": outputs["logits"][:known]}, {"labels": batch["labels"][:known]}, smoothing)
        return own + self._now * self._distance(outputs, known)
