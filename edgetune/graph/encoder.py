"""Encoders with a head: ids and mask in, and for pairs of texts token types; what the head says out.

What is the same for every text is folded into the weights, and the mask is made in three steps instead of twenty: on a short text a
small model spends more time on such steps than on its matrices.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.graph import BATCH, SEQUENCE, Plan, Shape
from edgetune.graph.session import of_tokens
from edgetune.tasks import INPUTS

LOGITS = {"logits": (BATCH,)}


class Encoder(torch.nn.Module):
    """`model` with positional inputs (ids, mask and, for pairs, token types) and its `outputs`, by name, as a tuple."""

    def __init__(self, model: PreTrainedModel, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.outputs = model, tuple(outputs)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        """[b, s] int64 each -> float32."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        said = self.model(input_ids=input_ids, attention_mask=attention_mask, **types)
        return tuple(said[name] for name in self.outputs)


class Lean(Encoder):
    """The same answers: the attention gets its mask ready to add and, without pairs, token type 0 is added to the positions' embedding once."""

    def __init__(self, model: PreTrainedModel, outputs: Sequence[str], pairs: bool) -> None:
        super().__init__(copy.deepcopy(model, {id(weight): weight for weight in model.parameters()}), outputs)  # the weights are shared
        for module in () if pairs else self.model.modules():
            types, positions = (getattr(module, f"{name}_embeddings", None) for name in ("token_type", "position"))
            if isinstance(types, torch.nn.Embedding) and isinstance(positions, torch.nn.Embedding):
                positions.weight = torch.nn.Parameter(positions.weight + types.weight[0], requires_grad=False)
                module.token_type_embeddings = Nothing()
                module._buffers.pop("token_type_ids", None)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        added = (1 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        return super().forward(input_ids, added, token_type_ids)


class Nothing(torch.nn.Module):
    def forward(self, ids: torch.Tensor) -> float:
        return 0.0


def plan(model: PreTrainedModel, max_length: int, outputs: Mapping[str, tuple[str, ...]] = LOGITS, pairs: bool = False) -> Plan:
    """`max_length`: the longest sequence of the parity grid, at most 512. `outputs`: their names and symbolic dimensions. `pairs`: the model
    tells two texts apart by token types."""
    pad_id = model.config.pad_token_id or 0
    vocabulary = model.config.vocab_size
    inputs = INPUTS[: 3 if pairs else 2]

    def feeds(shape: Shape, seed: int) -> dict[str, np.ndarray]:
        chance = np.random.default_rng(seed)
        ids = chance.integers(0, vocabulary, (shape.batch, shape.sequence), dtype=np.int64)
        mask = np.ones_like(ids)
        if shape.padded:
            for row in range(1, shape.batch):
                real = int(chance.integers(1, shape.sequence + 1))
                ids[row, real:], mask[row, real:] = pad_id, 0
        second = np.arange(shape.sequence) >= chance.integers(1, shape.sequence + 1, (shape.batch, 1))
        return dict(zip(inputs, (ids, mask, second * mask), strict=False))

    longest = min(512, max_length)
    module = Encoder(model, tuple(outputs)).eval()
    return Plan(
        module=module,
        traced=_lean(model, module, feeds(Shape(3, min(16, longest), padded=True), 0), pairs),
        inputs=inputs,
        outputs=tuple(outputs),
        dynamic={**{name: {0: BATCH, 1: SEQUENCE} for name in inputs}, **{name: dict(enumerate(dims)) for name, dims in outputs.items()}},
        feeds=feeds,
        shapes=tuple(
            Shape(b, s, padded=p)
            for b in (1, 3)
            for s in sorted({1, 2, min(17, longest), longest})
            for p in ((False, True) if b > 1 else (False,))
        ),
        trace_shape=Shape(2, min(16, longest)),
        metadata={},
    )


def _lean(model: PreTrainedModel, module: Encoder, feeds: dict[str, np.ndarray], pairs: bool) -> Lean | None:
    """The lean form where it answers the same on `feeds`: some models make masks of their own."""
    given = [torch.from_numpy(array) for array in feeds.values()]
    real = feeds["attention_mask"].astype(bool)
    try:
        lean = Lean(model, module.outputs, pairs).eval()
        with torch.no_grad():
            both = zip(module.outputs, lean(*given), module(*given), strict=True)
            same = all(torch.allclose(_said(name, a, real), _said(name, b, real), rtol=1e-5, atol=1e-5) for name, a, b in both)
    except (TypeError, ValueError, RuntimeError, IndexError):
        same = False
    if not same:
        progress.note(f"{type(model).__name__} makes a mask of its own: traced as it is")
    return lean if same else None


def _said(name: str, output: torch.Tensor, real: np.ndarray) -> torch.Tensor:
    """Without what is said about padding, which is nobody's answer."""
    return output[torch.from_numpy(real)] if of_tokens(name, output.numpy()) else output
