"""Which weights are trained from when on, and how fast: the last layers only, one layer more each epoch, slower further down, LoRA+.

A model is a stack: embeddings at depth 0, its layers at 1 to n, and what reads them (the head, a last norm) at n + 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgetune import progress, tasks
from edgetune.errors import RecipeError
from edgetune.recipe import Recipe
from edgetune.sections import AdaptKeys, LoraKeys

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LAYERED = ("adapt.layers", "adapt.layer_decay", "adapt.gradual_unfreezing")
LOW_RANK = ("lora", "qlora", "dora")


@dataclass(frozen=True)
class Pace:
    """By the name of a weight: its learning rate as a factor of the recipe's (1 where it is not named), and the epoch it is trained from (0)."""

    rates: Mapping[str, float] = field(default_factory=dict)
    opens: Mapping[str, int] = field(default_factory=dict)


def check(recipe: Recipe) -> None:
    """Raises RecipeError for settings that the method does not read, or that the base has no layers for; loads no weight."""
    plain = AdaptKeys()
    changed = [key for key in LAYERED if getattr(recipe.adapt, key[6:]) != getattr(plain, key[6:])]
    if changed and recipe.method != "full":
        raise RecipeError(
            f"{', '.join(changed)}: for method full alone, and the method is {recipe.method}", mend="--method full, or leave it away"
        )
    if recipe.lora.plus_ratio != LoraKeys().plus_ratio and recipe.method not in LOW_RANK:
        raise RecipeError(
            f"lora.plus_ratio is for the two matrices of a low-rank adapter, which {recipe.method} has not",
            mend=f"choose one of {', '.join(LOW_RANK)}, or leave it away",
        )
    if changed:
        if tasks.get(recipe.task).family == "seq2seq":
            raise RecipeError(f"{', '.join(changed)}: {recipe.task} has two stacks of layers, and none is the last", mend="leave it away")
        from edgetune.methods.memory import outline

        depths(outline(recipe, ())[1], recipe.adapt.layers)


def freeze(recipe: Recipe, model: PreTrainedModel) -> None:
    """Leave only the last `adapt.layers` layers and what reads them to train; all where it is 0."""
    if not recipe.adapt.layers:
        return
    found = depths(model, recipe.adapt.layers)
    top = max(found.values())
    for name, weight in model.named_parameters():
        weight.requires_grad = found[name] >= top - recipe.adapt.layers
    progress.note(f"the last {recipe.adapt.layers} of {top - 1} layers are trained, and the head; the others stay as they are")


def of(recipe: Recipe, model: torch.nn.Module, epochs: int) -> Pace:
    """How `model`, with requires_grad on what is trained, is trained over so many epochs; what the recipe leaves at its defaults adds nothing."""
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    decay, ratio = recipe.adapt.layer_decay, recipe.lora.plus_ratio
    if ratio != 1:
        return Pace({name: ratio for name in names if "lora_B" in name})
    if decay == 1 and not recipe.adapt.gradual_unfreezing:
        return Pace()
    found = depths(model)
    top = max(found.values())
    rates = {name: decay ** (top - found[name]) for name in names}
    if not recipe.adapt.gradual_unfreezing:
        return Pace(rates)
    opens = {name: top - found[name] for name in names}
    last = min(max(opens.values()), epochs - 1)
    never = sum(epoch >= epochs for epoch in opens.values())
    progress.note(
        f"gradual unfreezing: the head in epoch 1, one layer more in each epoch, all that is reached from epoch {last + 1} on"
        + (f"; {never} of {len(opens)} weights are not reached in {epochs} epochs" if never else "")
    )
    return Pace(rates, opens)


def depths(model: torch.nn.Module, asked: int = 0) -> dict[str, int]:
    """Of each weight of the model. Raises RecipeError where it has no one stack of layers, or fewer than `asked`."""
    from edgetune.methods.layers import stacks

    layers, found = getattr(model.config, "num_hidden_layers", 0), stacks(model)
    kind = getattr(model.config, "model_type", "such a")
    if len(found) != 1:
        raise RecipeError(
            f"cannot tell the layers of a {kind} model apart: it has no one stack of {layers}", mend=f"leave {', '.join(LAYERED)} away"
        )
    if asked > layers:
        raise RecipeError(
            f"adapt.layers = {asked}, but the model has {layers} layers", mend=f"set adapt.layers to at most {layers} (0: all)"
        )
    stack, depth = found[0][0], dict[str, int]()
    reached = 0  # before the stack, within it, after it
    for name, _ in model.named_parameters():
        inside = name.startswith(f"{stack}.")
        reached = 1 if inside else 2 if reached else 0
        if inside:
            depth[name] = 1 + int(name[len(stack) + 1 :].partition(".")[0])
        else:
            depth[name] = 0 if not reached or "embed" in name else layers + 1
    return depth
