"""Columns of the file -> columns of the task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetune import progress
from edgetune.data.read import Bad, Table
from edgetune.errors import DataError, did_you_mean
from edgetune.recipe import Recipe
from edgetune.tasks import Task

MESSAGES = "messages"
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Columns:
    """`names`: column of the task -> column of the file; `given`: those that the recipe named."""

    names: Mapping[str, str]
    given: frozenset[str]

    def __str__(self) -> str:
        return ", ".join(f'{column} = "{name}"' for column, name in self.names.items())


def find(task: Task, recipe: Recipe, tables: Sequence[Table]) -> Columns:
    """Which column is which, decided on the first table and present in all. Raises DataError with every problem found."""
    first = tables[0]
    names: dict[str, str] = {}
    problems: list[str] = []
    mends: list[str] = []
    given = frozenset(column for column in task.columns if getattr(recipe.data, column))
    if MESSAGES in first.columns and "completion" in task.columns and not given:
        if not any(name.lower() in task.columns["completion"] for name in first.columns):
            names = {MESSAGES: MESSAGES}
        else:
            problems.append('there are both chat "messages" and a completion')
            mends.append("--set data.prompt=... --set data.completion=..., or take one of them out")
    for column, aliases in {} if names or problems else task.columns.items():
        wanted = getattr(recipe.data, column)
        if wanted:
            candidates = [name for name in first.columns if name == wanted]
            near = did_you_mean(wanted, first.columns)
        else:
            free = [name for name in first.columns if name not in names.values()]
            fits = ([n for n in free if n == column], [n for n in free if n.lower() == column], [n for n in free if n.lower() in aliases])
            candidates = next((names_found for names_found in fits if names_found), [])
            near = next((hint for alias in aliases if (hint := did_you_mean(alias, free))), "")
        if len(candidates) == 1:
            names[column] = candidates[0]
        elif candidates:
            problems.append(f"{column}: more than one column could be it: {', '.join(candidates)}")
            mends.append(f"--set data.{column}={candidates[0]}")
        else:
            problems.append(f'{column}: no column "{wanted}"{near}' if wanted else f"{column}: none of {', '.join(aliases)}{near}")
            mends.append(f"--set data.{column}=COLUMN")
    if problems:
        header = "" if names else " (the first line of a CSV or TSV is its header)"
        raise DataError(
            f"{first.file}: cannot tell which column is which",
            details=[*problems, f"columns found: {_listed(first.columns)}{header}"],
            mend=f"name the column:  {' '.join(mends)}",
        )
    for table in tables:
        absent = [name for name in names.values() if name not in table.columns]
        if absent and table.columns:
            raise DataError(
                f'{table.file} has no column "{absent[0]}", which {first.file} has{did_you_mean(absent[0], table.columns)}',
                details=[f"columns found: {_listed(table.columns)}"],
                mend=f'call it "{absent[0]}" in every file',
            )
    found = Columns(names, given)
    progress.note(f"columns: {found}" + ("" if given == names.keys() else " (found by name)"))
    return found


def rows(table: Table, columns: Columns) -> tuple[list[dict[str, Any]], list[Bad]]:
    """The rows in the task's own columns, with `row` and `file`; and those that lack something."""
    kept: list[dict[str, Any]] = []
    bad: list[Bad] = []
    trimmed = 0
    for number, source in table.rows:
        row: dict[str, Any] = {}
        missing: list[str] = []
        for column, name in columns.names.items():
            value = source.get(name)
            if column == MESSAGES:
                value, problem = _messages(value)
            elif column == "label":
                value, problem = _label(value, table.classes.get(name))
            else:
                value, problem = _text(value, column)
            if problem:
                missing.append(problem)
            elif column == "label":
                trimmed += value != source[name] and isinstance(source[name], str)
            row[column] = value
        if missing:
            bad.append(Bad(table.file, number, " and ".join(missing)))
        else:
            kept.append({**row, "row": number, "file": table.file})
    if trimmed:
        progress.note(f"{table.file}: {trimmed:,} label{'s' if trimmed > 1 else ''} had blanks around, which were cut off")
    return kept, bad


def key(row: Mapping[str, Any]) -> str:
    """What decides whether two rows are the same: the text, or the prompt, case-folded, with runs of whitespace as one space."""
    return normalise(question(row))


def question(row: Mapping[str, Any]) -> str:
    """The text of a classification row; what a generation row is asked."""
    if MESSAGES in row:
        return "\n".join(f"{message['role']}: {message['content']}" for message in row[MESSAGES][:-1])
    return str(row["text"] if "text" in row else row["prompt"])


def answer(row: Mapping[str, Any]) -> str:
    """The label, or the completion with runs of whitespace as one space."""
    if "label" in row:
        return str(row["label"])
    return " ".join(str(row[MESSAGES][-1]["content"] if MESSAGES in row else row["completion"]).split())


def normalise(text: str) -> str:
    return " ".join(text.casefold().split())


def _text(value: Any, column: str) -> tuple[str, str]:
    if isinstance(value, float) and math.isnan(value):
        value = None
    elif isinstance(value, (int, float)):
        value = str(value)
    if value is None or (isinstance(value, str) and not value.strip()):
        return "", f"no {column}"
    if not isinstance(value, str):
        return "", f"a {column} that is no string"
    if not _encodable(value):
        return "", f"a {column} that is not valid Unicode"
    return value, ""


def _label(value: Any, classes: Sequence[str] | None) -> tuple[str, str]:
    if classes is not None and isinstance(value, int):
        value = classes[value] if 0 <= value < len(classes) else None  # -1 marks a row without a label
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, float) and value.is_integer():
        value = str(int(value))
    text, problem = _text(value, "label")
    return text.strip(), problem


def _messages(value: Any) -> tuple[list[dict[str, str]], str]:
    if not isinstance(value, list) or not value:
        return [], "no messages"
    kept: list[dict[str, str]] = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return [], "a message without role or content"
        if message.get("role") not in ROLES:
            return [], f"a message whose role is none of {', '.join(ROLES)}"
        if not _encodable(message["content"]):
            return [], "a message that is not valid Unicode"
        kept.append({"role": message["role"], "content": message["content"]})
    if kept[-1]["role"] != "assistant" or not kept[-1]["content"].strip():
        return [], "no answer of the assistant at the end"
    if len(kept) == 1:
        return [], "no message before the assistant's answer"
    return kept, ""


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        return False
    return True


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name or '""' for name in names[:12])
    return (f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown)[:300]
