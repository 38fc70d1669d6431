"""Entities of a text, by the tag of each word; as in edgetune/tasks/entities.py, where they were learned."""

from __future__ import annotations

import re
from typing import Any, Sequence  # noqa: UP035

import numpy as np

from .probability import softmax

ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+|[^\w\s]")


def deciding(text: str, offsets: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """(start, end, first token) of the words of `text` that have a token; words that share their first token are one. `offsets`: of tokens."""
    found: list[tuple[int, int, int]] = []
    at = 0
    for match in WORD.finditer(text):
        while at < len(offsets) and (offsets[at][1] <= match.start() or offsets[at][0] == offsets[at][1]):
            at += 1
        if at == len(offsets) or offsets[at][0] >= match.end():
            continue
        start = match.start()
        if found and found[-1][2] == at:
            start = found.pop()[0]
        found.append((start, match.end(), at))
    return found


def entities(text: str, offsets: Sequence[Sequence[int]], logits: np.ndarray, tags: Sequence[str]) -> list[dict[str, Any]]:
    """`label`, `text`, `start`, `end` (characters) and `confidence` (mean chance of its tags) of every entity, in their order.

    `logits` [tokens, tags]. An I- that nothing opens, or of another type than what is open, opens an entity.
    """
    chances = softmax(logits)
    found: list[dict[str, Any]] = []
    inside = ""  # the type of the entity that is open
    sure: list[list[float]] = []
    for start, end, token in deciding(text, offsets):
        best = int(chances[token].argmax())
        role, _, kind = tags[best].partition("-")
        if role == "I" and kind == inside:
            found[-1]["end"] = end
            sure[-1].append(float(chances[token][best]))
        elif kind:
            found.append({"label": kind, "text": "", "start": start, "end": end})
            sure.append([float(chances[token][best])])
        inside = kind
    return [
        {**one, "text": text[one["start"] : one["end"]], "confidence": sum(some) / len(some)}
        for one, some in zip(found, sure)  # noqa: B905  (3.9)
    ]


def one_line(found: Sequence[Any]) -> str:
    """For people."""
    return ", ".join(f"{one['label']}: {one['text']}" for one in found) or "(no entities)"
