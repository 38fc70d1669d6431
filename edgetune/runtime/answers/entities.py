"""Tags of words (BIO2) as entities with their places in the text."""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence  # noqa: UP035

import numpy as np

from .probability import softmax

OUTSIDE = "O"
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"  # kana and ideographs: no blanks between words
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+|[^\w\s]")  # the same in edgetune/tasks/entities.py


def words(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word, in characters."""
    return [match.span() for match in WORD.finditer(text)]


def first_tokens(offsets: Sequence[Sequence[int]], places: Sequence[tuple[int, int]]) -> list[int]:
    """The token that decides for each of `places` (in order): the first that has a character of it, -1 where there is none."""
    found, at = [], 0
    for start, end in places:
        while at < len(offsets) and (offsets[at][1] <= start or offsets[at][0] == offsets[at][1]):
            at += 1
        found.append(at if at < len(offsets) and offsets[at][0] < end else -1)
    return found


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
    row, found = bundle.tokenized(item)
    places = words(item["text"])
    return [row], {"text": item["text"], "words": places, "tokens": first_tokens(found.offsets, places), "cut": bool(found.overflowing)}


def tagged(logits: np.ndarray, tags: Sequence[str], kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`logits` [tokens, tags] -> entities: `label`, `text`, `start`, `end` (characters) and `score`, the mean probability of their tags.

    An I- that continues nothing, or another type, opens an entity. Words without a token are outside.
    """
    found: list[dict[str, Any]] = []
    scores: list[list[float]] = []
    open_type = ""
    for (start, end), token in zip(kept["words"], kept["tokens"]):  # noqa: B905  (3.9)
        chances = softmax(logits[token]) if token >= 0 else None
        tag = tags[int(chances.argmax())] if chances is not None else OUTSIDE
        role, _, kind = tag.partition("-")
        if chances is None or role not in ("B", "I"):
            open_type = ""
            continue
        if role == "B" or kind != open_type:
            found.append({"label": kind, "text": "", "start": start, "end": end})
            scores.append([])
        open_type = kind
        found[-1]["end"] = end
        scores[-1].append(float(chances.max()))
    for entity, of_words in zip(found, scores):  # noqa: B905
        entity["text"] = kept["text"][entity["start"] : entity["end"]]
        entity["score"] = sum(of_words) / len(of_words)
    return found


def shown(found: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{entity['text']} ({entity['label']})" for entity in found) or "(no entities)"
