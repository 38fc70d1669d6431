"""Encoders with a classification head: ids and mask in, logits out.

What is the same for every text is folded into the weights, and the mask is made in three steps instead of twenty: on a short text a
small model spends more time on such steps than on its matrices.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune import progress
from edgetune.graph import BATCH, SEQUENCE, Plan, Shape


class Classifier(torch.nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[b, s] int64 twice -> logits [b, classes] float32."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


class Lean(Classifier):
    """The same answers: token type 0 is added to the positions' embedding once, and the attention gets its mask ready to add."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(copy.deepcopy(model, {id(weight): weight for weight in model.parameters()}))  # the weights are shared
        for module in self.model.modules():
            types, positions = (getattr(module, f"{name}_embeddings", None) for name in ("token_type", "position"))
            if isinstance(types, torch.nn.Embedding) and isinstance(positions, torch.nn.Embedding):
                positions.weight = torch.nn.Parameter(positions.weight + types.weight[0], requires_grad=False)
                module.token_type_embeddings = Nothing()
                module._buffers.pop("token_type_ids", None)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        added = (1 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        return super().forward(input_ids, added)


class Nothing(torch.nn.Module):
    def forward(self, ids: torch.Tensor) -> float:
        return 0.0


def plan(model: PreTrainedModel, max_length: int) -> Plan:
    """`max_length`: the longest sequence of the parity grid, at most 512."""
    pad_id = model.config.pad_token_id or 0
    vocabulary = model.config.vocab_size

    def feeds(shape: Shape, seed: int) -> dict[str, np.ndarray]:
        chance = np.random.default_rng(seed)
        ids = chance.integers(0, vocabulary, (shape.batch, shape.sequence), dtype=np.int64)
        mask = np.ones_like(ids)
        if shape.padded:
            for row in range(1, shape.batch):
                real = int(chance.integers(1, shape.sequence + 1))
                ids[row, real:], mask[row, real:] = pad_id, 0
        return {"input_ids": ids, "attention_mask": mask}

    longest = min(512, max_length)
    module = Classifier(model).eval()
    axes = {0: BATCH, 1: SEQUENCE}
    return Plan(
        module=module,
        traced=_lean(model, module, feeds(Shape(3, min(16, longest), padded=True), 0)),
        inputs=("input_ids", "attention_mask"),
        outputs=("logits",),
        dynamic={"input_ids": axes, "attention_mask": axes, "logits": {0: BATCH}},
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


def _lean(model: PreTrainedModel, module: Classifier, feeds: dict[str, np.ndarray]) -> Lean | None:
    """The lean form where it answers the same on `feeds`: some models make masks of their own."""
    ids, mask = (torch.from_numpy(feeds[name]) for name in ("input_ids", "attention_mask"))
    try:
        lean = Lean(model).eval()
        with torch.no_grad():
            same = torch.allclose(lean(ids, mask), module(ids, mask), rtol=1e-5, atol=1e-5)
    except (TypeError, ValueError, RuntimeError, IndexError):
        same = False
    if not same:
        progress.note(f"{type(model).__name__} makes a mask of its own: traced as it is")
    return lean if same else None
