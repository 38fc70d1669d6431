"""CoNLL files: a word and its tag a line, a blank line between sentences.

Two to four columns with tabs or blanks between them (CoNLL-2003 has word, part of speech, chunk, entity): the word is the first, the tag
the last. `-DOCSTART-` lines begin a document, whose sentences stay in one split. Lines of a comment begin with # and have another number of columns.
The number of a row is the line on which its sentence starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from edgetune import progress
from edgetune.data.tags import looks_like_tag

SUFFIXES = (".conll", ".iob", ".iob2", ".bio", ".bioes", ".ner")
MOST, FEWEST = 4, 2
LOOKED_AT = 2000  # lines that decide whether a file under another suffix is CoNLL
_BLANK = " \t\r"
_DOCUMENT = "-DOCSTART-"

Lines = list[tuple[int, str]]


def looks_like(text: str) -> bool:
    """Whether each line has two to four columns of which the last is a tag, and there are blank lines or many tags."""
    lines = [line for line in text.split("\n", LOOKED_AT)[:LOOKED_AT] if line.strip(_BLANK) and not line.startswith(("#", _DOCUMENT))]
    fields = _separator([(0, line) for line in lines])
    rows = [fields(line) for line in lines]
    return bool(rows) and all(len(row) == len(rows[0]) and FEWEST <= len(row) <= MOST and looks_like_tag(row[-1]) for row in rows)


def read(file: str, text: str) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str, str]], int]:
    """(rows with `tokens` and `tags` (and `group`: the document), each with its line; (line, reason, detail) of bad ones; columns)."""
    sentences: list[Lines] = [[]]
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip(_BLANK):
            sentences[-1].append((number, line.strip("\r")))
        elif sentences[-1]:
            sentences.append([])
    fields = _separator([line for sentence in sentences for line in sentence])
    widths = Counter(len(fields(line)) for sentence in sentences for _, line in sentence if not line.startswith(("#", _DOCUMENT)))
    width = widths.most_common(1)[0][0] if widths else 0
    rows: list[tuple[int, dict[str, Any]]] = []
    bad: list[tuple[int, str, str]] = []
    documents = comments = 0
    for sentence in sentences:
        lines: Lines = []
        for number, line in sentence:
            if line.startswith(_DOCUMENT):
                documents += 1
            elif line.startswith("#") and len(fields(line)) != width:
                comments += 1
            else:
                lines.append((number, line))
        if not lines:
            continue
        parts = [fields(line) for _, line in lines]
        wrong = next((i for i, part in enumerate(parts) if len(part) != width), None)
        if wrong is not None:
            bad.append((lines[0][0], "the wrong number of columns", f"line {lines[wrong][0]:,} has {len(parts[wrong])} of {width}"))
        else:
            row: dict[str, Any] = {"tokens": [part[0] for part in parts], "tags": [part[-1].strip() for part in parts]}
            rows.append((lines[0][0], {**row, "group": f"{file}, document {documents}"} if documents else row))
    if width > FEWEST:
        progress.note(f"{file} has {width} columns: the words are in the first, the tags in the last")
    for count, what in ((documents, "-DOCSTART- line"), (comments, "comment")):
        if count:
            progress.note(f"{file}: {count:,} {what}{'s' if count > 1 else ''} are no sentences")
    return rows, bad, width


def _separator(lines: Lines) -> Callable[[str], list[str]]:
    """How the columns are told apart: tabs where every line has one, else runs of blanks."""
    own = [line for _, line in lines if not line.startswith(("#", _DOCUMENT))]
    if own and all("\t" in line for line in own):
        return lambda line: line.strip("\r").split("\t")
    return lambda line: line.split()
