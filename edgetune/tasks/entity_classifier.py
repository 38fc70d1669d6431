"""A classifier of two marked entities: it reads the states of the tokens that open them.

"Entity markers - entity start" of Baldini Soares et al., "Matching the Blanks" (arXiv:1906.03158, section 4). The class of an architecture
is made from transformers' own, so that its checkpoints load under the names that they have.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch
from transformers import MODEL_MAPPING, AutoConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from edgetune.errors import ModelError

OPENING = (0, 2)  # of <e1>, </e1>, <e2>, </e2>


class EntityClassifier:
    """Stands where an Auto class of transformers stands: `from_pretrained` and `from_config` give a model for any encoder."""

    @classmethod
    def from_pretrained(cls, folder: Any, *, config: Any = None, trust_remote_code: bool = False, **options: Any) -> Any:
        """The model in `folder`: a base without a head, which then starts at random, or one that `save_pretrained` wrote."""
        config = config or AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        return _kind(config.__class__).from_pretrained(folder, config=config, **options)

    @classmethod
    def from_config(cls, config: Any, *, trust_remote_code: bool = False, **options: Any) -> Any:
        return _kind(config.__class__)._from_config(config, **options)


@cache
def _kind(config: Any) -> Any:
    """The class for the architecture of this class of configurations. Raises ModelError."""
    body: Any = MODEL_MAPPING.get(config, None)
    parent: Any = next((kind for kind in getattr(body, "__mro__", ())[1:] if getattr(kind, "base_model_prefix", "")), None)
    if body is None or parent is None:
        raise ModelError(
            f"no model of transformers has the configuration {getattr(config, '__name__', config)}",
            mend="choose a plain encoder, such as a BERT",
        )
    plain = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(body).parameters else {}

    def build(self: Any, config: Any) -> None:
        parent.__init__(self, config)
        setattr(self, self.base_model_prefix, body(config, **plain))
        self.dropout = torch.nn.Dropout(0.1)
        self.classifier = torch.nn.Linear(len(OPENING) * config.hidden_size, config.num_labels)
        self.post_init()

    return type("EntityClassifier", (parent,), {"__init__": build, "forward": _forward, "__module__": __name__})


def _forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> SequenceClassifierOutput:
    """[b, s] int64 -> logits [b, labels]. An entity that no marker opens counts as zeros."""
    base: PreTrainedModel = getattr(self, self.base_model_prefix)
    said = base(input_ids=input_ids, attention_mask=attention_mask, **options)
    hidden = said.last_hidden_state
    opening = [(input_ids == self.config.marker_token_id[place]).unsqueeze(1).to(hidden.dtype) for place in OPENING]
    states = torch.cat([(mask @ hidden / mask.sum(-1, keepdim=True).clamp(min=1)).squeeze(1) for mask in opening], dim=-1)
    return SequenceClassifierOutput(logits=self.classifier(self.dropout(states)), hidden_states=said.hidden_states)
