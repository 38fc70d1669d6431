"""The mean of the weights at the ends of several passes (stochastic weight averaging: Izmailov et al., arXiv:1803.05407).

Where the learning rate falls to nothing in each pass and then starts anew, each pass ends at another edge of one wide minimum; the mean of these
ends lies nearer to its middle, and answers better, than any of them. It is kept beside the moments of the optimizer, so that a checkpoint has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.swa_utils import get_swa_multi_avg_fn

MEAN = "mean"


def update(weights: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, averaged: int) -> None:
    """Take `weights` into their mean, which is of `averaged` so far."""
    trained = [weight for weight in weights.values() if optimizer.state[weight]]
    for weight in trained:
        optimizer.state[weight].setdefault(MEAN, weight.detach().clone())
    if trained:
        get_swa_multi_avg_fn()([optimizer.state[weight][MEAN] for weight in trained], [w.detach() for w in trained], averaged)


@contextmanager
def used(weights: Mapping[str, torch.nn.Parameter], optimizer: Any) -> Iterator[None]:
    """While it lasts, `weights` are their mean, where there is one."""
    own = {weight: weight.detach().clone() for weight in weights.values() if MEAN in optimizer.state.get(weight, {})}
    with torch.no_grad():
        for weight in own:
            weight.copy_(optimizer.state[weight][MEAN])
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in own.items():
                weight.copy_(value)
