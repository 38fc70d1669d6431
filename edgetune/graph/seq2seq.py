"""Encoder-decoder models (T5, BART, Marian and their like) as two graphs: one reads the text, once; one writes, token by token.

The first gives the keys and values that every decoder layer reads the text by, `present.{i}.encoder.key|value`; the second takes them as
`past_key_values.{i}.encoder.key|value`, beside a cache of its own, `past_key_values.{i}.decoder.key|value` -> `present.{i}.decoder.key|value`.
The first step is one with an empty cache, so one decoder graph does all of them, without a branch, and what is made of the text is made
once. Names as optimum and transformers.js have them; these keep the projections of the text in the decoder, behind an `If`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache, EncoderDecoderCache

from edgetune.errors import ModelError
from edgetune.graph import BATCH, PAST, SEQUENCE, TOTAL, Plan, Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SOURCE = "encoder_sequence_length"
LONG = 512  # the longest sequence of the parity grid


class Reader(torch.nn.Module):
    """A text -> keys and values of it for layer 0, layer 1, ... of the decoder, as one step of the decoder would make them."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[b, s] int64 each -> 2 x layers of [b, heads, s, head_dim]."""
        start = torch.zeros_like(input_ids[:, :1])  # any token: what is read off does not depend on it
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        out = self.model(input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=start, past_key_values=cache, use_cache=True)
        return _flat(out.past_key_values.cross_attention_cache)


class Writer(torch.nn.Module):
    """The decoder, whose caches go in as flat tensors: of its own, then of the text."""

    def __init__(self, model: PreTrainedModel, layers: int) -> None:
        super().__init__()
        self.model, self.layers = model, layers

    def forward(self, input_ids: torch.Tensor, encoder_attention_mask: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[b, t], [b, s] int64, 2 x layers of [b, heads, past, head_dim], 2 x layers of [b, heads, s, head_dim] -> logits
        [b, t, vocabulary] and 2 x layers of [b, heads, past + t, head_dim]."""
        own, text = _cache(past[: 2 * self.layers]), _cache(past[2 * self.layers :])
        cache = EncoderDecoderCache(own, DynamicCache())
        cache.cross_attention_cache, cache.is_updated = text, dict.fromkeys(range(self.layers), True)
        width = self.model.config.hidden_size  # the text's states are only looked at for their shape
        states = encoder_attention_mask[:, :, None].to(past[0].dtype).expand(-1, -1, width)
        out = self.model(
            encoder_outputs=(states,),
            attention_mask=encoder_attention_mask,
            decoder_input_ids=input_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return (out.logits, *_flat(out.past_key_values.self_attention_cache))


def plans(model: PreTrainedModel) -> tuple[Plan, Plan]:
    """How to trace the two graphs of `model`; its attention is set to eager, which opset <= 22 can say without NaN guards.

    Raises ModelError for a model whose caches are not one key and one value of the same shape per layer.
    """
    model.eval()
    model.set_attn_implementation("eager")
    layers, heads, head_dim = _cache_shape(model)
    vocabulary = int(model.config.vocab_size)
    longest = min(LONG, int(getattr(model.config, "max_position_embeddings", LONG) or LONG))
    reader, writer = Reader(model).eval(), Writer(model, layers).eval()
    kinds = [f"{i}.{{}}.{kind}" for i in range(layers) for kind in ("key", "value")]
    own, text, present, read = (
        [f"{side}.{kind.format(part)}" for kind in kinds]
        for side, part in (("past_key_values", "decoder"), ("past_key_values", "encoder"), ("present", "decoder"), ("present", "encoder"))
    )

    def texts(batch: int, length: int, padded: bool, random: np.random.Generator) -> dict[str, np.ndarray]:
        ids = random.integers(0, vocabulary, (batch, length), dtype=np.int64)
        mask = np.ones_like(ids)
        for row in range(1, batch if padded else 0):
            mask[row, max(1, length - row) :] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def to_read(shape: Shape, seed: int) -> dict[str, np.ndarray]:
        return texts(shape.batch, shape.sequence, shape.padded, np.random.default_rng(seed))

    def to_write(shape: Shape, seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        given = texts(shape.batch, 1 + seed % 7 + 2 * shape.padded, shape.padded, random)
        ids = random.integers(0, vocabulary, (shape.batch, shape.past + shape.sequence), dtype=np.int64)
        said = _run(reader, model, given.values())
        cached = [np.zeros((shape.batch, heads, 0, head_dim), dtype=np.float32)] * len(own)
        if shape.past:  # a past that the model itself leaves
            cached = _run(writer, model, [ids[:, : shape.past], given["attention_mask"], *cached, *said])[1:]
        feeds = {"input_ids": ids[:, shape.past :], "encoder_attention_mask": given["attention_mask"]}
        return feeds | dict(zip([*own, *text], [*cached, *said], strict=True))

    grid = [Shape(batch, length, padded=padded) for batch in (1, 3) for length in (1, 2, 17) for padded in ((False, True)[:batch])]
    steps = [Shape(one.batch, one.sequence, past, one.padded) for one in grid for past in (0, 5)]
    metadata = {"layers": layers, "heads": heads, "head_dim": head_dim, "vocabulary": vocabulary}
    return (
        Plan(
            module=reader,
            inputs=("input_ids", "attention_mask"),
            outputs=tuple(read),
            dynamic={
                **{name: {0: BATCH, 1: SEQUENCE} for name in ("input_ids", "attention_mask")},
                **{name: {0: BATCH, 2: SEQUENCE} for name in read},
            },
            feeds=to_read,
            shapes=(*grid, Shape(1, longest)),
            trace_shape=Shape(2, 6),
            metadata=metadata,
        ),
        Plan(
            module=writer,
            inputs=("input_ids", "encoder_attention_mask", *own, *text),
            outputs=("logits", *present),
            dynamic={
                "input_ids": {0: BATCH, 1: SEQUENCE},
                "encoder_attention_mask": {0: BATCH, 1: SOURCE},
                **{name: {0: BATCH, 2: PAST} for name in own},
                **{name: {0: BATCH, 2: SOURCE} for name in text},
                "logits": {0: BATCH, 1: SEQUENCE},
                **{name: {0: BATCH, 2: TOTAL} for name in present},
            },
            feeds=to_write,
            shapes=(*steps, Shape(1, min(64, longest))),
            trace_shape=Shape(2, 3, 4),
            metadata=metadata,
        ),
    )


def _cache(tensors: tuple[torch.Tensor, ...]) -> DynamicCache:
    cache = DynamicCache()
    for layer in range(len(tensors) // 2):
        cache.update(tensors[2 * layer], tensors[2 * layer + 1], layer)
    return cache


def _flat(cache: Any) -> tuple[torch.Tensor, ...]:
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def _run(module: torch.nn.Module, model: PreTrainedModel, arrays: Any) -> list[np.ndarray]:
    with torch.inference_mode():
        return [tensor.cpu().numpy() for tensor in module(*(torch.from_numpy(array).to(model.device) for array in arrays))]


def _cache_shape(model: PreTrainedModel) -> tuple[int, int, int]:
    """(decoder layers, heads, head size), read off the caches that one token leaves."""
    one = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    empty = EncoderDecoderCache(DynamicCache(), DynamicCache())  # of no configuration: decoders with other depths than their encoders
    with torch.inference_mode():
        out = model(input_ids=one, decoder_input_ids=one, past_key_values=empty, use_cache=True)
    cache = getattr(out, "past_key_values", None)
    both: list[Any] = [getattr(cache, f"{kind}_attention_cache", None) for kind in ("self", "cross")]
    shapes = {tuple(tensor.shape) for part in both for tensor in (_flat(part) if part is not None else ())}
    if len(shapes) != 1 or len(both[0].layers) != len(both[1].layers):
        raise ModelError(
            f"{model.config.model_type} does not keep one key and one value of the same shape per layer",
            mend="choose a model with ordinary attention, such as T5, BART or Marian",
        )
    shape = shapes.pop()
    return len(both[0].layers), shape[1], shape[3]
