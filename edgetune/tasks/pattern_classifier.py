"""A language model that answers with a label: what it says at one place of a pattern, of the labels' words alone.

Its output layer has a row a label in the place of one a token. A masked model is read at its mask, a causal one after the last token.
On disk it is a plain directory whose configuration names `PatternClassifier` as its architecture; `gap_token_id` is the mask's, or None.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING, AutoConfig
from transformers.utils import ModelOutput

from edgetune.errors import ModelError


@dataclass
class Said(ModelOutput):  # type: ignore[misc]
    """`logits` [b, labels] float32."""

    logits: torch.Tensor | None = None
    hidden_states: Any = None


class PatternClassifier:
    """Stands where an Auto class of transformers stands."""

    @classmethod
    def from_pretrained(cls, folder: Any, *, config: Any = None, trust_remote_code: bool = False, **options: Any) -> Any:
        """The model that `save_pretrained` wrote into `folder`."""
        config = config or AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        return _of(config).from_pretrained(folder, config=config, **options)

    @classmethod
    def from_config(cls, config: Any, *, trust_remote_code: bool = False, **options: Any) -> Any:
        return _of(config)._from_config(config, **options)


def _of(config: Any) -> Any:
    return _kind(config.__class__, config.gap_token_id is not None)


@cache
def _kind(config: Any, masked: bool) -> Any:
    """The class for this class of configurations. Raises ModelError."""
    parent: Any = (MODEL_FOR_MASKED_LM_MAPPING if masked else MODEL_FOR_CAUSAL_LM_MAPPING).get(config, None)
    if parent is None:
        raise ModelError(
            f"no {'masked' if masked else 'causal'} language model of transformers has the configuration {config.__name__}",
            mend="choose a plain language model, such as a BERT or a Llama",
        )

    def build(self: Any, config: Any) -> None:
        parent.__init__(self, config)
        labels = torch.nn.Linear(self.get_output_embeddings().in_features, config.num_labels)
        self.set_output_embeddings(labels)
        for module in self.modules():  # RoBERTa's head holds its bias twice
            if getattr(module, "decoder", None) is labels and "bias" in module._parameters:
                module.bias = labels.bias
        self.post_init()

    def forward(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: Any) -> Said:
        """[b, s] int64 -> `Said`. The mask may also be one that is ready to add, [b, 1, 1, s]."""
        said = parent.forward(self, input_ids=input_ids, attention_mask=attention_mask, **options)
        if masked:
            place = (input_ids == self.config.gap_token_id).long().argmax(1)
        else:
            real = attention_mask if attention_mask.ndim == 2 else attention_mask[:, 0, 0] == 0
            place = (real.long().sum(1) - 1).clamp(min=0)
        index = place[:, None, None].expand(-1, 1, said.logits.shape[-1])
        return Said(said.logits.gather(1, index)[:, 0].float(), said.hidden_states)

    tied = {one: other for one, other in (parent._tied_weights_keys or {}).items() if one.endswith("bias")}  # its rows are no tokens
    body = {"__init__": build, "forward": forward, "__module__": __name__, "_tied_weights_keys": tied}
    return type("PatternClassifier", (parent,), body)
