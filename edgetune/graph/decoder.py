"""Causal language models with a key-value cache, as one graph: an empty past is the prefill.

Inputs and outputs are named as transformers.js and onnxruntime-genai load them: `input_ids`, `attention_mask`, `position_ids`,
`past_key_values.{i}.key|value` -> `logits`, `present.{i}.key|value`. Logits of every position stay, for the perplexity.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from edgetune.errors import ModelError
from edgetune.graph import BATCH, PAST, SEQUENCE, TOTAL, Plan, Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LONG = 512  # the longest sequence of the parity grid


class Decoder(torch.nn.Module):
    """A causal language model whose cache goes in and out as flat tensors: key and value of layer 0, of layer 1, ..."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """[b, s], [b, past + s], [b, s] int64 and 2 x layers of [b, kv_heads, past, head_dim] -> logits [b, s, vocabulary] and
        2 x layers of [b, kv_heads, past + s, head_dim]."""
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, past_key_values=cache, use_cache=True
        )
        return (out.logits, *(tensor for layer in out.past_key_values.layers for tensor in (layer.keys, layer.values)))


def plan(model: PreTrainedModel) -> Plan:
    """How to trace `model`; its attention is set to eager, which opset <= 22 can say without NaN guards.

    Raises ModelError for a model whose cache is not one key and one value of the same shape per layer.
    """
    model.eval()
    model.set_attn_implementation("eager")
    layers, kv_heads, head_dim = _cache_shape(model)
    module = Decoder(model).eval()
    vocabulary = int(model.config.get_text_config().vocab_size)
    longest = min(LONG, int(getattr(model.config.get_text_config(), "max_position_embeddings", LONG)))
    past = [f"past_key_values.{i}.{kind}" for i in range(layers) for kind in ("key", "value")]
    present = [f"present.{i}.{kind}" for i in range(layers) for kind in ("key", "value")]

    def feeds(shape: Shape, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        mask = np.ones((shape.batch, shape.past + shape.sequence), dtype=np.int64)
        if shape.padded:
            _pad(mask, shape.past)
        position = np.maximum(mask.cumsum(-1) - 1, 0)
        ids = random.integers(0, vocabulary, mask.shape, dtype=np.int64)
        cached = [np.zeros((shape.batch, kv_heads, 0, head_dim), dtype=np.float32)] * len(past)
        if shape.past:  # a past that the model itself leaves: random numbers would amplify rounding beyond what ever occurs
            before = [ids[:, : shape.past], mask[:, : shape.past], position[:, : shape.past], *cached]
            with torch.inference_mode():
                cached = [tensor.cpu().numpy() for tensor in module(*(torch.from_numpy(a).to(model.device) for a in before))[1:]]
        return {
            "input_ids": ids[:, shape.past :],
            "attention_mask": mask,
            "position_ids": position[:, shape.past :],
            **dict(zip(past, cached, strict=True)),
        }

    return Plan(
        module=module,
        inputs=("input_ids", "attention_mask", "position_ids", *past),
        outputs=("logits", *present),
        dynamic={
            "input_ids": {0: BATCH, 1: SEQUENCE},
            "attention_mask": {0: BATCH, 1: TOTAL},
            "position_ids": {0: BATCH, 1: SEQUENCE},
            **{name: {0: BATCH, 2: PAST} for name in past},
            "logits": {0: BATCH, 1: SEQUENCE},
            **{name: {0: BATCH, 2: TOTAL} for name in present},
        },
        feeds=feeds,
        shapes=(
            *(
                Shape(batch, sequence, cached, padded)
                for batch in (1, 3)
                for sequence in (1, 2, 17)
                for cached in (0, 5)
                for padded in (False, True)
                if sequence + cached > 1 or not padded
            ),
            Shape(1, longest),
        ),
        trace_shape=Shape(2, 3, 4),
        metadata={"layers": layers, "kv_heads": kv_heads, "head_dim": head_dim, "vocabulary": vocabulary},
    )


def _pad(mask: np.ndarray, past: int) -> None:
    """Take a third of every row but the first of several: odd rows lose it in the past, on the left, the others on the right.

    No new token stands before all real ones: it would see nothing, and what a model says there is noise.
    """
    total = mask.shape[1]
    lost = max(1, total // 3)
    for row in range(min(1, len(mask) - 1), len(mask)):
        if past and (row % 2 or len(mask) == 1):
            mask[row, : min(lost, past - 1)] = 0
        else:
            mask[row, total - lost :] = 0


def _cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """(layers, key-value heads, head size), read off the cache that one token leaves: the same way for every family."""
    one = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    with torch.inference_mode():
        cache: Any = getattr(model(input_ids=one, past_key_values=DynamicCache(), use_cache=True), "past_key_values", None)
    layers = getattr(cache, "layers", ())
    tensors = [getattr(layer, kind, None) for layer in layers for kind in ("keys", "values")]
    shapes = {None if tensor is None else tuple(tensor.shape) for tensor in tensors}
    shape = shapes.pop() if len(shapes) == 1 else None
    if shape is None:
        raise ModelError(
            f"{model.config.model_type} keeps more than one key and one value of the same shape per layer",
            mend="choose a model with ordinary attention, such as Llama, Qwen, Gemma or GPT-2",
        )
    return len(layers), shape[1], shape[3]
