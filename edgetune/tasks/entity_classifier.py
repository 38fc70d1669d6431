"""A classifier of two marked entities: it reads the states of the tokens that open them.

"Entity markers - entity start" of Baldini Soares et al., "Matching the Blanks" (arXiv:1906.03158, section 4).
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from edgetune.tasks.headed import Headed, base

OPENING = (0, 2)  # of <e1>, </e1>, <e2>, </e2>


def _heads(model: Any, config: Any) -> None:
    model.dropout = torch.nn.Dropout(0.1)
    model.classifier = torch.nn.Linear(len(OPENING) * config.hidden_size, config.num_labels)


def _forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> SequenceClassifierOutput:
    """[b, s] int64 -> logits [b, labels]. An entity that no marker opens counts as zeros."""
    said = base(self)(input_ids=input_ids, attention_mask=attention_mask, **options)
    hidden = said.last_hidden_state
    opening = [(input_ids == self.config.marker_token_id[place]).unsqueeze(1).to(hidden.dtype) for place in OPENING]
    states = torch.cat([(mask @ hidden / mask.sum(-1, keepdim=True).clamp(min=1)).squeeze(1) for mask in opening], dim=-1)
    return SequenceClassifierOutput(logits=self.classifier(self.dropout(states)), hidden_states=said.hidden_states)


class EntityClassifier(Headed):
    heads, forward = _heads, _forward
