"""Words of a row exchanged for others, while its tags, places and marks stay true."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from edgetune.data import noise, speech
from edgetune.data.tags import OUTSIDE
from edgetune.tasks import Task

Row = dict[str, Any]
Entities = dict[str, list[tuple[str, list[list[int]]]]]  # type -> the entities of train: their text, and where its words are


def entities_of(rows: Sequence[Row]) -> Entities:
    """The different entities of each type, by their text."""
    found: dict[str, dict[str, list[list[int]]]] = defaultdict(dict)
    for row in rows:
        for first, last, kind in entity_spans(row.get("tags", ())):
            start, end = row["words"][first][0], row["words"][last - 1][1]
            found[kind].setdefault(row["text"][start:end], [[a - start, b - start] for a, b in row["words"][first:last]])
    return {kind: list(texts.items()) for kind, texts in found.items()}


def entity_spans(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """(first word, the one after the last, type) of each entity of BIO2 tags."""
    starts = [i for i, tag in enumerate(tags) if tag.startswith("B-")]
    spans = []
    for start in starts:
        end = start + 1
        while end < len(tags) and tags[end] == f"I-{tags[start][2:]}":
            end += 1
        spans.append((start, end, tags[start][2:]))
    return spans


def with_words(row: Row, task: Task, edits: Callable[[Sequence[str], Sequence[bool]], Sequence[speech.Edit]]) -> Row:
    """The row with the words of its text edited. Words of entities, tagged or marked, are fixed: there will be no fewer of them."""
    if "words" in row:
        tags: Sequence[str] = row["tags"]
        places = row["words"]
        found = edits([row["text"][a:b] for a, b in places], [tag != OUTSIDE for tag in tags])
        return edited(row, [_tagged(edit, tags) for edit in found])

    def change(text: str) -> str:
        places = _words(text)
        marked = [match.span() for match in noise.marked(task.markers).finditer(text)] if task.markers else []
        # A word with a marker in it stays as it is: an edit of it would be one of the marker.
        inside = [any(start < b and a < end for start, end in marked) for a, b in places]
        found = [edit for edit in edits([text[a:b] for a, b in places], inside) if not any(inside[edit[0] : edit[1]])]
        new: str = edited({"text": text, "words": places, "tags": [OUTSIDE] * len(places)}, [_tagged(edit) for edit in found])["text"]
        return new.strip()

    return noise.with_question(row, change)


def _words(text: str) -> list[list[int]]:
    """The words of a text; its characters where there are no blanks."""
    places = [[*match.span()] for match in re.finditer(r"\S+", text)]
    return places if len(places) > 1 else [[*match.span()] for match in re.finditer(r"\S", text)]


def _tagged(edit: speech.Edit, tags: Sequence[str] = ()) -> tuple[int, int, str, list[list[int]], list[str]]:
    """An edit with the places of its words and their tags: the first has the tag of what it replaces, the others go on with it."""
    first, last, text = edit
    inner = [[*match.span()] for match in re.finditer(r"\S+", text)]
    tag = tags[first] if tags else OUTSIDE
    return first, last, text, inner, [tag if i == 0 else tag.replace("B-", "I-", 1) for i in range(len(inner))]


def edited(row: Row, edits: Sequence[tuple[int, int, str, list[list[int]], list[str]]]) -> Row:
    """The row with each (first, last, text, places, tags) in place of its words first to last, the last not among them, in order.

    A word that becomes an empty text leaves with the blanks behind it; but where none would be left the row stays.
    """
    text, places, tags = row["text"], row["words"], row["tags"]
    out, words, kept = "", [], []
    at = word = 0
    for first, last, new, inner, own in [*edits, (len(places), len(places), "", [], [])]:
        start = places[first][0] if first < len(places) else len(text)
        moved = len(out) - at
        words += [[a + moved, b + moved] for a, b in places[word:first]]
        kept += tags[word:first]
        out += text[at:start]
        words += [[a + len(out), b + len(out)] for a, b in inner]
        kept += own
        out += new
        word, at = last, places[last - 1][1] if last > first else start
        if not new and (not out or out[-1].isspace()):
            at += len(text[at:]) - len(text[at:].lstrip())
    return {**row, "text": out, "words": words, "tags": kept} if words else dict(row)
