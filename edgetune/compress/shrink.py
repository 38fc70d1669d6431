"""Fewer layers and narrower feed-forward blocks: where a student starts from, before it is distilled.

What stays is copied from the teacher, so that a student has little to learn (DistilBERT, arXiv:1910.01108, section 2; Sanh et al.
take every second layer as well). The result is a plain transformers model: its configuration says how many layers and how wide.
Heads are not pruned: transformers derives a head's width from their number, so such a model could not be loaded again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from transformers import PretrainedConfig, PreTrainedModel

from edgetune.errors import ModelError
from edgetune.methods.layers import stacks

LAYERS = ("num_hidden_layers", "n_layers", "n_layer")  # what configurations call them
WIDTH = ("intermediate_size", "hidden_dim", "ffn_dim")


def layers(config: PretrainedConfig) -> int:
    """How many layers a model of this configuration has. Raises ModelError when it does not say."""
    return int(getattr(config, _named(config, LAYERS, "layers")))


def feed_forward(config: PretrainedConfig) -> int:
    """The width of its feed-forward blocks. Raises ModelError when the configuration does not say."""
    return int(getattr(config, _named(config, WIDTH, "a feed-forward width")))


def shrink(model: PreTrainedModel, keep_layers: int = 0, width: int = 0) -> PreTrainedModel:
    """A copy of `model` with `keep_layers` layers and feed-forward blocks of `width` neurons (0: all of them).

    Layers are taken evenly from the first to the last; neurons by the product of the norms of what they read and write with.
    Raises ModelError when there are not so many, or the model's blocks are of an unknown form.
    """
    student = copy.deepcopy(model)
    _at_most("compress.layers", keep_layers, layers(model.config))
    _at_most("compress.feed_forward", width, feed_forward(model.config))
    if keep_layers and keep_layers < layers(model.config):
        _drop_layers(student, keep_layers)
    if width and width < feed_forward(model.config):
        for reads, writes in _blocks(student):
            _narrow(reads, writes, width)
        setattr(student.config, _named(student.config, WIDTH, ""), width)
    return student


def chosen(total: int, keep: int) -> list[int]:
    """Indices of the layers that stay: 3 of 6 are 0, 2 and 5."""
    return [0] if keep == 1 else [round(i * (total - 1) / (keep - 1) - 1e-9) for i in range(keep)]


def _stack(student: PreTrainedModel) -> tuple[str, torch.nn.ModuleList]:
    """The layers, and the name that they are found under."""
    found = stacks(student)
    if len(found) != 1:
        raise ModelError(f"cannot find the {layers(student.config)} layers of {type(student).__name__}", mend="leave compress.layers at 0")
    return found[0]


def _drop_layers(student: PreTrainedModel, keep: int) -> None:
    name, stack = _stack(student)
    total = len(stack)
    parent, _, own = name.rpartition(".")
    setattr(student.get_submodule(parent), own, torch.nn.ModuleList(stack[i] for i in chosen(total, keep)))
    setattr(student.config, _named(student.config, LAYERS, ""), keep)


def _blocks(student: PreTrainedModel) -> Iterator[tuple[torch.nn.Linear, torch.nn.Linear]]:
    """(into the block, out of it) of every feed-forward block. Gated blocks, with two ways in, are refused."""
    width = feed_forward(student.config)
    linear = [module for module in _stack(student)[1].modules() if isinstance(module, torch.nn.Linear)]
    into, out = ([m for m in linear if getattr(m, side) == width] for side in ("out_features", "in_features"))
    if len(into) != len(out) or len(into) != layers(student.config):
        raise ModelError(f"cannot find the feed-forward blocks of {type(student).__name__}", mend="leave compress.feed_forward at 0")
    return zip(into, out, strict=True)


def _narrow(reads: torch.nn.Linear, writes: torch.nn.Linear, width: int) -> None:
    importance = reads.weight.norm(dim=1) * writes.weight.norm(dim=0)
    kept = importance.topk(width).indices.sort().values
    reads.weight = torch.nn.Parameter(reads.weight[kept].clone())
    if reads.bias is not None:
        reads.bias = torch.nn.Parameter(reads.bias[kept].clone())
    writes.weight = torch.nn.Parameter(writes.weight[:, kept].clone())
    reads.out_features = writes.in_features = width


def _at_most(key: str, asked: int, there: int) -> None:
    if asked > there:
        raise ModelError(f"{key} = {asked}, but the model has {there}", mend=f"set {key} to at most {there}")


def _named(config: PretrainedConfig, names: tuple[str, ...], what: str) -> str:
    found = next((name for name in names if isinstance(getattr(config, name, None), int)), None)
    if found is None:
        raise ModelError(
            f"the configuration of a {config.model_type} model does not say how many {what} it has".replace("many a", "wide a")
        )
    return found
