"""Of the word embeddings, the rows whose tokens occur: no other has a gradient, and clipping and AdamW over all of them take a fifth of a step.

MiniLM has 30,522 rows, half of its weights; the texts of banking77 use 2,316 of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import embedding
from transformers import PreTrainedModel

from edgetune import progress

MOST = 0.5  # of all rows: with more, little is gained


def tokens(examples: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """The ids in `input_ids`."""
    return frozenset(i for example in examples for i in example["input_ids"])


class Used(torch.nn.Module):
    """An embedding whose trained `weight` [rows, hidden] is that of some ids; the others stay as they are."""

    def __init__(self, whole: torch.nn.Embedding, ids: torch.Tensor) -> None:
        super().__init__()
        place = torch.full((whole.num_embeddings,), -1, dtype=torch.int64, device=ids.device)
        place[ids] = torch.arange(len(ids), device=ids.device)
        self.place, self.whole = place, whole.weight.detach()
        self.weight = torch.nn.Parameter(whole.weight.detach()[ids])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[b, s] int64 -> [b, s, hidden]."""
        place = self.place[ids]
        return torch.where(place.unsqueeze(-1) < 0, embedding(ids, self.whole), embedding(place.clamp(min=0), self.weight))


@contextmanager
def only(model: PreTrainedModel, ids: Collection[int] | None) -> Iterator[None]:
    """While it lasts, `model` trains the rows of `ids` alone of its word embeddings; nothing changes where it trains none of them, or something
    else reads them (a tied head), or most occur. None: any may occur."""
    name, whole = _embedding(model) if ids is not None else ("", None)
    if ids is None or whole is None or len(ids) > MOST * whole.num_embeddings:
        yield
        return
    pad = {whole.padding_idx}  # has no gradient
    kept = torch.tensor(sorted(set(ids) - pad), device=whole.weight.device)
    used = Used(whole, kept)
    progress.note(f"{len(kept):,} of {whole.num_embeddings:,} tokens occur in what is learned from: the embeddings of the others stay")
    model.set_submodule(name, used)
    try:
        yield
    finally:
        with torch.no_grad():
            whole.weight[kept] = used.weight
        model.set_submodule(name, whole)


def _embedding(model: PreTrainedModel) -> tuple[str, torch.nn.Embedding | None]:
    """The word embeddings and their name, where they are trained, plain, and read in one place."""
    found = model.get_input_embeddings()
    if type(found) is not torch.nn.Embedding or found.max_norm is not None or not found.weight.requires_grad:
        return "", None
    places = [name for name, module in model.named_modules(remove_duplicate=False) if module is found]
    weights = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is found.weight]
    return (places[0], found) if len(places) == len(weights) == 1 else ("", None)
