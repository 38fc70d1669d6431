"""The relation between two marked entities of a text: the <e1>lid</e1> of a <e2>jar</e2>."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

from .text_classification import decode, line
from .text_classification import read as read_text

__all__ = ["decode", "line", "read"]
MARKERS = ("<e1>", "</e1>", "<e2>", "</e2>")


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], bool]:
    """As training had it; a text in which not both entities are marked, each once, is an error."""
    places = [item["text"].find(marker) for marker in MARKERS]
    once = all(item["text"].count(marker) == 1 for marker in MARKERS)
    if not once or places[0] > places[1] or places[2] > places[3]:
        raise bundle.error("mark the two entities, each once: the <e1>lid</e1> of a <e2>jar</e2>")
    return read_text(bundle, item)
