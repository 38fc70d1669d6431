"""Encoders with a classification head: ids and mask in, logits out.

Token types are left out: a single text has type 0 everywhere, which the graph folds into a constant.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import PreTrainedModel

from edgetune.graph import BATCH, SEQUENCE, Plan, Shape


class Classifier(torch.nn.Module):
    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """[b, s] int64 twice -> logits [b, classes] float32."""
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


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
    axes = {0: BATCH, 1: SEQUENCE}
    return Plan(
        module=Classifier(model).eval(),
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
