"""A finished run learns more: its model is where training starts, its rows are replayed, and its labels keep their places.

Replay of old rows is what keeps class-incremental learners from forgetting (Rebuffi et al., iCaRL, arXiv:1611.07725, with a memory of rows
of each class; Chaudhry et al., arXiv:1902.10486, with few of them).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from edgetune import data, progress
from edgetune.artifact import Artifact, Dataset, Merged, folder_digest
from edgetune.data.earlier import Earlier
from edgetune.errors import ModelError, RecipeError, RunError
from edgetune.methods import HEADS, POOLERS
from edgetune.recipe import AUTO, Recipe
from edgetune.sections import ContinualKeys
from edgetune.workspace import existing

TASKS = ("text-classification", "multi-label-classification", "relation-extraction", "token-classification")  # a line of the head a label
METHODS = ("full", "head", "lora", "dora", "oft", "ia3")
LEAST_NOISE = 0.02  # of a new line of the head: what transformers starts one with
WITHOUT = {  # methods that cannot go on from a model, and why
    "few-shot": "it fits its head anew, to new rows alone",
    "distillation": "its teacher knows no new labels",
    "linear-probe": "it fits its head anew, to new rows alone",
    "prompt-tuning": "a prompt of its own would stand in the vocabulary beside the run's",
    "p-tuning": "a prompt of its own would stand in the vocabulary beside the run's",
    "pattern": "it starts from words, which the run's model no longer says",
    "verbaliser": "it learns from no row",
    "qlora": "it would start from a model rounded to 4 bits, which is not the run's",
}


@dataclass(frozen=True)
class Learned:
    """A finished run: what it was asked, its rows and its model."""

    recipe: Recipe
    dataset: Dataset
    merged: Merged


def learned(recipe: Recipe) -> Learned:
    """The run that `recipe` continues. Raises RunError when it is not there, not finished, or not as it was written."""
    path = Path(recipe.continual.run)
    run = existing(path)
    if recipe.output and Path(recipe.output).resolve() == path.resolve():
        raise RunError(f"{path} cannot be continued into itself: a run is never changed", mend="choose another --output")
    stages = run.manifest["stages"]
    if "merge" in stages and "adapt" not in stages:
        raise RunError(
            f"{path} was trained elsewhere: which rows its model learned from is not known", mend=f"--model {path / 'merged'} adapts it"
        )

    def part(kind: type[Artifact], stage: str, folder: str) -> Any:
        entry = stages.get(stage)
        if not entry or not (path / folder).is_dir():
            raise RunError(f"{path} is not finished: it has no {folder}/", mend=f"edgetune merge {path}")
        if folder_digest(path / folder) != entry["digest"]:
            raise RunError(f"{path / folder} was changed after it was written", mend=f"edgetune merge {path} makes it again")
        return kind(path / folder, entry["digest"], entry["facts"])

    return Learned(run.recipe, part(Dataset, "prepare", "data"), part(Merged, "merge", "merged"))


def complete(recipe: Recipe) -> Recipe:
    """`recipe` with what the run that it continues decides: model, task and max_length; method `full` where none, or auto, is given.

    Raises RecipeError for what contradicts the run, or cannot be continued.
    """
    if not recipe.continual.run:
        if recipe.continual != ContinualKeys():
            raise RecipeError(
                "continual.replay and continual.ewc are for a run that is continued", mend="--continue RUN, or leave them away"
            )
        return recipe
    before = learned(recipe)
    path, longest = recipe.continual.run, before.merged.facts["max_length"]
    decided = {"model": before.recipe.model, "task": before.recipe.task, "adapt.max_length": longest}
    given = {"model": recipe.model, "task": recipe.task, "adapt.max_length": recipe.adapt.max_length}
    if others := [
        f"{name}: {given[name]} asked, {value} in {path}" for name, value in decided.items() if given[name] not in ("", 0, value)
    ]:
        raise RecipeError(f"{path} is continued as it is", details=others, mend="leave these keys away")
    if before.recipe.task not in TASKS:
        raise RecipeError(f"a run of {before.recipe.task} cannot be continued", details=[f"tasks that can: {', '.join(TASKS)}"])
    method = "full" if recipe.method in ("", AUTO) else recipe.method
    if method not in METHODS:
        why = WITHOUT.get(method, "it does not start from the weights of a model")
        raise RecipeError(f"method {method} cannot continue a run: {why}", mend=f"choose one of: {', '.join(METHODS)}")
    if recipe.continual.ewc and method not in ("full", "head"):
        raise RecipeError(
            f"continual.ewc holds weights where they were, but {method} trains none of those", mend="--method full, or without ewc"
        )
    adapt = recipe.adapt.model_copy(update={"max_length": longest})
    return recipe.model_copy(update={"model": before.recipe.model, "task": before.recipe.task, "method": method, "adapt": adapt})


def rows(recipe: Recipe) -> Earlier | None:
    """The rows of the run that is continued."""
    if not recipe.continual.run:
        return None
    before = learned(recipe)
    splits = {split: data.rows(before.dataset.path, split) for split in data.SPLITS}
    facts = before.dataset.facts
    return Earlier(recipe.continual.run, splits, before.merged.facts["labels"], facts["out_of_scope"], recipe.continual.replay)


def grown(model: PreTrainedModel, labels: Sequence[str]) -> PreTrainedModel:
    """`model` with a line of its head for each new label: the mean of the lines that it has, and noise as wide as they differ.

    Without the noise new labels are one label for the encoder, which then learns them slowly. Raises ModelError when `labels` do not begin
    with the model's, or the model has no head with a line a label.
    """
    config: Any = model.config
    known = [config.id2label[i] for i in range(config.num_labels)]
    if list(labels[: len(known)]) != known:
        raise ModelError(f"the labels of the model are not the first of the {len(labels)} asked")
    if len(labels) == len(known):
        return model
    fitting = [name for name, module in _head(model) if module.out_features == len(known)]
    if not fitting:
        raise ModelError(f"{type(model).__name__} has no head with a line a label that could get more")
    old, more = dict(_head(model))[fitting[-1]], len(labels) - len(known)
    new = torch.nn.Linear(old.in_features, len(labels), bias=old.bias is not None)
    with torch.no_grad():
        lines = old.weight
        noise = torch.randn(more, lines.shape[1]) * lines.std(0, correction=0).clamp(min=LEAST_NOISE)
        new.weight.copy_(torch.cat([lines, lines.mean(0) + noise]))
        if old.bias is not None:
            new.bias.copy_(torch.cat([old.bias, old.bias.mean().expand(more)]))
    model.set_submodule(fitting[-1], new)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    setattr(model, "num_labels", len(labels))  # noqa: B010 - torch types every attribute as a tensor or a module
    shown = ", ".join(labels[len(known) :][:5]) + (f" and {more - 5} more" if more > 5 else "")
    progress.note(f"{len(known)} labels keep their places; {more} new ones start near the mean of them: {shown}")
    return model


def _head(model: torch.nn.Module) -> list[tuple[str, torch.nn.Linear]]:
    """The linear layers of the head by name, the last one last."""
    own = set(HEADS) - set(POOLERS)
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and own.intersection(name.split("."))
    ]
