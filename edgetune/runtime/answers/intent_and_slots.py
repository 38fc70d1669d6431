"""What a sentence asks for (its intent), and with what (its slots). The labels are the intents (intent:NAME), then the tags of the slots."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .entities import entities, one_line
from .text_classification import SURE, chosen
from .token_classification import read

__all__ = ["decode", "line", "read"]
INTENT = "intent:"


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], kept: Any) -> dict[str, Any]:
    """`intent` (None: too unsure), `confidence`, `scores` of the three best intents; `slots` (see entities.py); `cut`."""
    text, offsets, cut = kept
    intents = outputs["logits"].shape[-1]
    labels = bundle.facts["labels"]
    found = chosen(outputs["logits"][0], [label[len(INTENT) :] for label in labels[:intents]], bundle.facts["confidence"] or SURE)
    return {
        "intent": found.pop("label"),
        **found,
        "slots": entities(text, offsets, outputs["slot_logits"][0], labels[intents:]),
        "cut": cut,
    }


def line(found: Mapping[str, Any]) -> str:
    return f"{found['intent'] or '(no intent)'}\t{found['confidence']:.3f}\t{one_line(found['slots']) if found['slots'] else '(no slots)'}"
