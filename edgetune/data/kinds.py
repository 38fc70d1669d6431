"""What a column holds, told by its name: the same for every task. One row of `KINDS` a column, one function a row.

A function takes the value of a cell and the names behind integers (or None), and returns (value as the tasks know it, what is wrong or "").
In CSV and TSV, lists and objects are written as JSON; tokens and tags also with blanks between, labels with | or ; between.

Some columns are only another way to give what a task wants: `WAYS`. Columns that belong together become the task's own in `JOINS`.

    given                          the row has
    tokens, tags (, text)          text, words [[start, end], ...] in characters, tags (BIO2)
    text, spans                    the same
    messages                       messages
    instruction, input, completion prompt, completion
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgetune.data import instructions, relation, spans, squad, tags
from edgetune.data.instructions import MESSAGES, encodable

Names = Sequence[str] | None
Kind = Callable[[Any, Names], tuple[Any, str]]


def _text_of(column: str) -> Kind:
    return lambda value, _: _text(value, column)


def _text(value: Any, column: str) -> tuple[str, str]:
    if isinstance(value, float) and math.isnan(value):
        value = None
    elif isinstance(value, (int, float)):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", f"no {column}"
    if not isinstance(value, str):
        return "", f"a {column} that is no string"
    if not encodable(value):
        return "", f"a {column} that is not valid Unicode"
    return value, ""


def _label_of(column: str) -> Kind:
    def read(value: Any, names: Names) -> tuple[str, str]:
        if names is not None and isinstance(value, int):
            value = names[value] if 0 <= value < len(names) else None  # -1 marks a row without a label
        if isinstance(value, (list, tuple)):
            return "", f"several {column}s"
        if isinstance(value, bool):
            value = str(value).lower()
        elif isinstance(value, float) and value.is_integer():
            value = str(int(value))
        text, problem = _text(value, column)
        return text.strip(), problem

    return read


def _labels(value: Any, names: Names) -> tuple[list[str], str]:
    """The different labels of a row, sorted; none at all is an answer too."""
    value = _structured(value)
    if isinstance(value, str):
        separator = "|" if "|" in value else ";"
        value = [part for part in value.split(separator) if part.strip()]
    if not isinstance(value, (list, tuple)):
        return [], "no labels" if value is None else "labels that are no list"
    found: set[str] = set()
    for item in value:
        label, problem = _LABEL(item, names)
        if problem:
            return [], "a label that is empty or no string"
        found.add(label)
    return sorted(found), ""


def _tasks(value: Any, _: Names) -> tuple[dict[str, str], str]:
    """{task: label}, sorted; a task without a label is not asked of this row."""
    value = _structured(value)
    if not isinstance(value, Mapping):
        return {}, "no labels of tasks" if value is None else 'tasks that are no object such as {"task": "label"}'
    found: dict[str, str] = {}
    for task, given in sorted(value.items()):
        label, problem = _LABEL(given, None)
        if ":" in task:
            return {}, "a task whose name has a colon"
        if not problem:
            found[task] = label
        elif problem != "no label":
            return {}, f"{problem} of a task"
    return found, "" if found else "no labels of tasks"


def _score(value: Any, _: Names) -> tuple[float, str]:
    if value is None or (isinstance(value, str) and not value.strip()):
        return 0.0, "no score"
    try:
        score = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        return 0.0, "a score that is no number"
    return (score, "") if math.isfinite(score) else (0.0, "a score that is no finite number")


def _list_of(column: str) -> Kind:
    """Tokens and tags: a list of strings that are not empty."""

    def read(value: Any, names: Names) -> tuple[list[str], str]:
        value = _structured(value)
        if isinstance(value, str):
            value = value.split()
        if not isinstance(value, (list, tuple)):
            return [], f"no {column}" if value is None else f"{column} that are no list"
        if not value:
            return [], f"no {column}"
        if names is not None:
            value = [names[item] if isinstance(item, int) and 0 <= item < len(names) else item for item in value]
        if not all(isinstance(item, str) for item in value):
            numbers = all(isinstance(item, int) for item in value)
            return [], f"{column} that are numbers without names" if numbers else f"{column} that are not all strings"
        if not all(item.strip() for item in value):
            return [], f"an empty one among its {column}"
        if not all(map(encodable, value)):
            return [], f"{column} that are not valid Unicode"
        return list(value), ""

    return read


def _spans(value: Any, _: Names) -> tuple[list[spans.Span], str]:
    value = _structured(value)
    return spans.read(value) if value is not None else ([], "no spans")


def _answers(value: Any, _: Names) -> tuple[list[tuple[int | None, str]], str]:
    return squad.read(_structured(value))


def _input(value: Any, _: Names) -> tuple[str, str]:
    """The input of an instruction, which may be empty."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", ""
    return _text(value, "input")


def _marked(value: Any, _: Names) -> tuple[str, str]:
    text, problem = _text(value, "text")
    return (text, problem) if problem else relation.read(text)


def _structured(value: Any) -> Any:
    """A cell that holds a JSON list or object (or one as Python writes it) -> that; anything else as it is."""
    if isinstance(value, float) and math.isnan(value):
        return None
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    for reader in (json.loads, ast.literal_eval):
        try:
            return reader(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


_LABEL = _label_of("label")
TEXTS = ("text", "text_pair", "prompt", "completion", "question", "context", "source", "target")
ASKED = ("text", "text_pair", "prompt", "question", "context", "source")  # what is asked of a model, in this order

KINDS: dict[str, Kind] = {
    **{column: _text_of(column) for column in TEXTS},
    "label": _LABEL,
    "intent": _label_of("intent"),
    "labels": _labels,
    "tasks": _tasks,
    "score": _score,
    "tokens": _list_of("tokens"),
    "tags": _list_of("tags"),
    "spans": _spans,
    "answers": _answers,
    MESSAGES: lambda value, _: instructions.messages(_structured(value)),
    "instruction": _text_of("instruction"),
    "input": _input,
}

# Where a column of a task holds more than its name says.
OF_TASK: dict[tuple[str, str], Kind] = {("relation-extraction", "text"): _marked}

# A column of a task -> the sets of columns that give it; the first that a file has all of is taken.
WAYS: dict[str, tuple[tuple[str, ...], ...]] = {
    "tags": (("tokens", "tags"), ("text", "spans")),
    "completion": (("prompt", "completion"), (MESSAGES,), ("instruction", "input", "completion")),
}

# Names under which a column is found where the task gives none.
ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "utterance", "query"),
    "tokens": ("tokens", "words", "token", "word"),
    "tags": ("tags", "ner_tags", "slots", "slot_tags", "bio", "iob", "labels"),
    "spans": ("spans", "entities", "slots", "annotations", "label", "labels"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
}

Join = Callable[[dict[str, Any]], tuple[str, str, str]]  # changes a row; what is wrong or "", where, what was mended or ""


def _words(rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> Join:
    """tokens and tags, in any scheme -> text, words, tags (BIO2). The scheme is that of all `rows`."""
    all_tags = [row["tags"] for row in rows]
    if untyped := tags.untyped(all_tags):
        all_tags = [tags.with_type(own) for own in all_tags]
        say(f'tags without a type are read as of the type "{tags.ONLY_TYPE}"')
    scheme = tags.detect(all_tags)
    if scheme != "BIO2":
        say(f"tags are {scheme}; converted to BIO2")
    convert = tags.SCHEMES[scheme]

    def join(row: dict[str, Any]) -> tuple[str, str, str]:
        tokens, own = row.pop("tokens"), row["tags"]
        if len(tokens) != len(own):
            return "another number of tags than of tokens", f"{len(own)} tags, {len(tokens)} tokens", ""
        text, places, problem = tags.place(tokens, row.get("text"))
        if problem:
            return "tokens that are not those of its text", problem, ""
        bio2, problem = convert(tags.with_type(own) if untyped else own)
        row.update(text=text, words=places, tags=bio2)
        return (f"tags that break {scheme}" if problem else ""), problem, ""

    return join


def _tagged(rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> Join:
    """text and spans -> text, words, tags."""

    def join(row: dict[str, Any]) -> tuple[str, str, str]:
        row["words"], row["tags"], trimmed, problem, where = spans.tagged(row["text"], row.pop("spans"))
        return problem, where, "blanks at the ends of a span, which were cut off" if trimmed else ""

    return join


def _located(rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> Join:
    """answers -> [[start, text], ...], each at its start in the context."""

    def join(row: dict[str, Any]) -> tuple[str, str, str]:
        row["answers"], mended, problem, where = squad.located(row["context"], row["answers"])
        return problem, where, "an answer that was not at its start, and was found" if mended else ""

    return join


def _instructed(rows: Sequence[Mapping[str, Any]], say: Callable[[str], None]) -> Join:
    def join(row: dict[str, Any]) -> tuple[str, str, str]:
        row["prompt"] = instructions.prompt(row.pop("instruction"), row.pop("input"))
        return "", "", ""

    return join


JOINS: dict[tuple[str, ...], Callable[[Sequence[Mapping[str, Any]], Callable[[str], None]], Join]] = {
    ("tokens", "tags"): _words,
    ("text", "spans"): _tagged,
    ("context", "answers"): _located,
    ("instruction", "input"): _instructed,
}
