"""A classifier of the mean of all tokens' states, as sentence encoders are made; it stands in for transformers' own, which reads the first token.

On disk it is a plain directory whose configuration names `PooledClassifier` as its architecture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput

from edgetune.tasks.headed import Headed, base, mean_state


@dataclass
class Pooled(ModelOutput):  # type: ignore[misc]
    """`logits` [b, labels], and what they were made of: `sentence_embedding` [b, hidden] float32 of length 1."""

    logits: torch.Tensor | None = None
    sentence_embedding: torch.Tensor | None = None
    hidden_states: Any = None


def _heads(model: Any, config: Any) -> None:
    model.classifier = torch.nn.Linear(config.hidden_size, config.num_labels)


def _forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> Pooled:
    """[b, s] int64 -> `Pooled`. The mask may also be one that is ready to add, [b, 1, 1, s]."""
    said = base(self)(input_ids=input_ids, attention_mask=attention_mask, **options)
    vectors = torch.nn.functional.normalize(mean_state(said.last_hidden_state.float(), attention_mask), dim=-1)
    return Pooled(self.classifier(vectors), vectors, said.hidden_states)


class PooledClassifier(Headed):
    heads, forward = _heads, _forward
