"""Spans of characters -> tags of words, and back.

Words are what `edgetune.tasks.entities.WORD` matches: the same for every tokenizer. Nothing is guessed: a span that leaves the text,
cuts a word or overlaps another is a problem of its row. Only blanks at the ends of a span are cut off, which is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetune.data import tags
from edgetune.tasks.entities import WORD

Span = tuple[int, int, str]
_LABELS = ("label", "type", "entity", "tag", "entity_group", "entity_type", "slot")


def words(text: str) -> list[list[int]]:
    """[start, end] of every word in `text`, in characters."""
    return [list(match.span()) for match in WORD.finditer(text)]


def read(value: Any) -> tuple[list[Span], str]:
    """[{start, end, label}] or [[start, end, label]] -> (spans, what is wrong with the value or "")."""
    if not isinstance(value, (list, tuple)):
        return [], "spans that are no list"
    found: list[Span] = []
    for item in value:
        if isinstance(item, Mapping):
            label = next((item[name] for name in _LABELS if name in item), None)
            start, end = item.get("start", item.get("start_offset")), item.get("end", item.get("end_offset"))
        elif isinstance(item, (list, tuple)) and len(item) == 3:
            start, end, label = item
        else:
            return [], "a span without start, end and label"
        if not isinstance(label, str) or not label.strip():
            return [], "a span without a label"
        if any(isinstance(at, bool) or not isinstance(at, (int, float)) or at != int(at) for at in (start, end)):
            return [], "a span whose start or end is no whole number"
        found.append((int(start), int(end), label.strip()))
    return found, ""


def tagged(text: str, spans: Sequence[Span]) -> tuple[list[list[int]], list[str], int, str, str]:
    """(words, BIO2 tags, spans that lost blanks at their ends, what is wrong or "", where) of a text with spans."""
    places = words(text)
    starts = {start: i for i, (start, _) in enumerate(places)}
    ends = {end: i + 1 for i, (_, end) in enumerate(places)}
    found: list[Span] = []
    trimmed, last = 0, 0
    for start, end, label in sorted(spans):
        where = f"span {start}-{end} ({label[:40]})"
        if not 0 <= start < end <= len(text):
            return (
                [],
                [],
                0,
                "a span outside of its text" if start < end else "an empty span",
                f"{where}; the text has {len(text)} characters",
            )
        inner = text[start:end]
        if not inner.strip():
            return [], [], 0, "an empty span", where
        first, after = start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
        trimmed += (first, after) != (start, end)
        if first not in starts or after not in ends:
            return [], [], 0, "a span that cuts a word", where
        if starts[first] < last:
            return [], [], 0, "spans that overlap", where
        last = ends[after]
        found.append((starts[first], last, label))
    return places, tags.spell(len(places), found), trimmed, "", ""


def spans(places: Sequence[Sequence[int]], tagged: Sequence[str]) -> list[Span]:
    """Words and their BIO2 tags -> (start, end, type) of each entity, in characters."""
    return [(places[first][0], places[after - 1][1], kind) for first, after, kind in tags.entities(tagged)]


def of_segments(segments: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """[{"text", "entity"?}, ...], the pieces of a sentence -> {"text", "spans"}; None when it is not that."""
    text, found = "", []
    if not segments:
        return None
    for piece in segments:
        if not isinstance(piece, Mapping) or not isinstance(piece.get("text"), str):
            return None
        if piece.get("entity"):
            found.append({"start": len(text), "end": len(text) + len(piece["text"]), "label": piece["entity"]})
        text += piece["text"]
    return {"text": text, "spans": found}
