"""Mixup: in each step the word vectors of a row are mixed with those of another, and their labels as much.

Zhang et al., arXiv:1710.09412; of word vectors: Guo, Mao and Zhang, arXiv:1905.08941. A row keeps the larger share, so that its own length counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel


class Mixed:
    """What `learns`, of rows that `mix` has mixed."""

    def __init__(self, learns: Any, alpha: float, pad_id: int) -> None:
        self.collate, self._learns, self._pad_id = learns.collate, learns, pad_id
        self._shares = torch.distributions.Beta(alpha, alpha)
        self._drawn: tuple[torch.Tensor, torch.Tensor] | None = None

    def mix(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...], vectors: torch.Tensor) -> torch.Tensor | None:
        """A hook of the word embeddings (ids [b, s] -> `vectors` [b, s, hidden]): while they learn, mixed; a vector stays where the other row has ended."""
        if not module.training:
            return None
        share = self._shares.sample()
        share, order = torch.maximum(share, 1 - share).to(vectors), torch.randperm(len(vectors)).to(vectors.device)
        self._drawn = share, order
        there = (given[0][order] != self._pad_id).unsqueeze(-1)
        return torch.where(there, share * vectors + (1 - share) * vectors[order], vectors)

    def loss(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
        """The loss of the labels of both rows, each by its share."""
        assert self._drawn is not None, "nothing was mixed"
        share, order = self._drawn
        other = {name: values[order] for name, values in batch.items()}
        mixed: torch.Tensor = share * self._learns.loss(outputs, batch, smoothing) + (1 - share) * self._learns.loss(
            outputs, other, smoothing
        )
        return mixed


@contextmanager
def mixed(learns: Any, model: PreTrainedModel, alpha: float, pad_id: int) -> Iterator[Mixed]:
    """What learns in the place of `learns`, while `model` mixes the rows of its batches."""
    found = Mixed(learns, alpha, pad_id)
    hook = model.get_input_embeddings().register_forward_hook(found.mix)
    try:
        yield found
    finally:
        hook.remove()
