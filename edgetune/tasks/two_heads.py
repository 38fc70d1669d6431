"""One encoder, two heads: an intent for the text and a tag for every token (joint training as in arXiv:1902.10909)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers.utils import ModelOutput

from edgetune.tasks.headed import Headed, base, mean_state

INTENT = "intent:"  # how the label of an intent begins; the others are tags


@dataclass
class Said(ModelOutput):  # type: ignore[misc]
    logits: torch.Tensor | None = None
    slot_logits: torch.Tensor | None = None
    hidden_states: Any = None


def _heads(model: Any, config: Any) -> None:
    intents = sum(label.startswith(INTENT) for label in config.id2label.values())
    model.dropout = torch.nn.Dropout(0.1)
    model.classifier = torch.nn.Linear(config.hidden_size, intents)
    model.slot_classifier = torch.nn.Linear(config.hidden_size, config.num_labels - intents)


def _forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> Said:
    """[b, s] int64 -> logits [b, intents], of the mean state of the real tokens, and slot_logits [b, s, tags].

    The mask may also be one that is ready to add, [b, 1, 1, s] float32.
    """
    said = base(self)(input_ids=input_ids, attention_mask=attention_mask, **options)
    hidden = self.dropout(said.last_hidden_state)
    pooled = mean_state(hidden, attention_mask)
    return Said(logits=self.classifier(pooled), slot_logits=self.slot_classifier(hidden), hidden_states=said.hidden_states)


class IntentAndSlots(Headed):
    heads, forward = _heads, _forward
