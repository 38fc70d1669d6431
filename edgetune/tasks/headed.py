"""Encoders with heads that transformers has no Auto class for.

The class of an architecture is made from transformers' own, so that its checkpoints load under the names that they have, and what
`save_pretrained` writes is a plain Hugging Face directory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import torch
from transformers import MODEL_MAPPING, AutoConfig

from edgetune.errors import ModelError


class Headed:
    """Stands where an Auto class of transformers stands: `from_pretrained` and `from_config` give a model for any encoder.

    A subclass has `heads(model, config)`, which adds them, and `forward` of the model, whose base is `base(model)`.
    """

    heads: ClassVar[Callable[[Any, Any], None]]
    forward: ClassVar[Callable[..., Any]]

    @classmethod
    def from_pretrained(cls, folder: Any, *, config: Any = None, trust_remote_code: bool = False, **options: Any) -> Any:
        """The model in `folder`: a base without heads, which then start at random, or one that `save_pretrained` wrote."""
        config = config or AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        kind: Any = cls
        return _kind(kind, config.__class__).from_pretrained(folder, config=config, **options)

    @classmethod
    def from_config(cls, config: Any, *, trust_remote_code: bool = False, **options: Any) -> Any:
        kind: Any = cls
        return _kind(kind, config.__class__)._from_config(config, **options)


def mean_state(hidden: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """The mean of the real tokens' states [b, s, hidden] -> [b, hidden]. The mask is [b, s] int64, or one that is ready to add, [b, 1, 1, s]."""
    real = attention_mask if attention_mask.ndim == 2 else attention_mask[:, 0, 0] == 0
    weight = real.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def base(model: Any) -> Any:
    return getattr(model, model.base_model_prefix)


@cache
def _kind(made: Any, config: Any) -> Any:
    """The class `made` for the architecture of this class of configurations. Raises ModelError."""
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
        made.heads(self, config)
        self.post_init()

    return type(made.__name__, (parent,), {"__init__": build, "forward": made.forward, "__module__": made.__module__})
