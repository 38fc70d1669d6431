"""Words for the gaps of a text; a gap is written as the tokenizer's mask, such as [MASK]."""

from __future__ import annotations

import json
from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .probability import softmax

SHOWN = 5


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
    row, found = bundle.tokenized(item)
    settings = json.loads((bundle.folder / "tokenizer_config.json").read_text("utf-8"))
    mask = settings["mask_token"] if isinstance(settings["mask_token"], str) else settings["mask_token"]["content"]
    gaps = [i for i, token in enumerate(found.ids) if token == bundle.tokenizer.token_to_id(mask)]
    return [row], {"text": item["text"], "mask": mask, "gaps": gaps, "offsets": found.offsets, "cut": bool(found.overflowing)}


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], kept: Mapping[str, Any]) -> dict[str, Any]:
    """`text` with the likeliest word in every gap, `gaps` (for each its `start` and `end` in what was given, and the five likeliest `fills`:
    `text`, `confidence`), `cut`. The gaps are filled one by one as if the others stayed."""
    if not kept["gaps"]:
        raise bundle.error(f"nothing to fill: write {kept['mask']} where a word is missing")
    filled, at, gaps = "", 0, []
    for place in kept["gaps"]:
        chances = softmax(outputs["logits"][0, place])
        best = np.argsort(-chances, kind="stable")[:SHOWN]
        fills = [{"text": bundle.tokenizer.decode([int(i)]).strip(), "confidence": float(chances[i])} for i in best]
        start, end = kept["offsets"][place]
        filled, at = filled + kept["text"][at:start] + fills[0]["text"], end
        gaps.append({"start": start, "end": end, "fills": fills})
    return {"text": filled + kept["text"][at:], "gaps": gaps, "cut": kept["cut"]}


def line(found: Mapping[str, Any]) -> str:
    return f"{found['text']}\t{min(gap['fills'][0]['confidence'] for gap in found['gaps']):.3f}"
