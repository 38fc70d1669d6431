"""Columns of the file -> columns of the task."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from edgetune import progress
from edgetune.data import instructions, kinds
from edgetune.data.instructions import MESSAGES
from edgetune.data.table import Bad, Table, lines
from edgetune.errors import DataError, did_you_mean
from edgetune.recipe import Recipe
from edgetune.tasks import Task

GROUP = "group"
LONGEST_GROUP = 80  # characters of a group's name
FEWEST_GROUPS = 10  # a column that is called "group" groups only when a tenth of its values is one at least
ANSWERED = ("label", "intent", "labels", "tags", "tasks", "score", "answers", "target", "completion")
WORDS = {
    "labels": "set of labels",
    "tasks": "set of labels",
    "tags": "tagging",
    "answers": "answer",
}  # one of them; the others are words already


@dataclass(frozen=True)
class Columns:
    """`names`: column -> column of the file; `given`: those that the recipe named; `group`: the column whose rows stay together, or ""."""

    names: Mapping[str, str]
    given: frozenset[str]
    group: str = ""
    task: str = ""

    def __str__(self) -> str:
        return ", ".join(f'{column} = "{name}"' for column, name in self.names.items())


def find(task: Task, recipe: Recipe, tables: Sequence[Table]) -> Columns:
    """Which column is which, decided on the first table and present in all. Raises DataError with every problem found."""
    first = tables[0]
    given = frozenset(column for column in kinds.KINDS if getattr(recipe.data, column, ""))
    names, problems, mends = best(task, recipe, first.columns)
    if problems:
        header = "" if names else " (the first line of a CSV or TSV is its header; name the columns of a file without:  --header A,B)"
        raise DataError(
            f"{first.file}: cannot tell which column is which",
            details=[*problems, f"columns found: {listed(first.columns)}{header}"],
            mend=f"name the column:  {' '.join(mends)}",
        )
    for table in tables:
        absent = [name for name in names.values() if name not in table.columns]
        if absent and table.columns:
            raise DataError(
                f'{table.file} has no column "{absent[0]}", which {first.file} has{did_you_mean(absent[0], table.columns)}',
                details=[f"columns found: {listed(table.columns)}"],
                mend=f'call it "{absent[0]}" in every file',
            )
    found = Columns(names, given & names.keys(), _group(recipe, names, tables), task.name)
    progress.note(f"columns: {found}" + ("" if given >= names.keys() else " (found by name)"))
    return found


def best(task: Task, recipe: Recipe, header: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """(column -> name in the file, problems, mends) for the way of giving the task's columns that the file fits best."""
    tried = [_match(task, recipe, header, way) for way in _ways(task, recipe, header)]
    return min(tried, key=lambda one: len(one[1]))  # the first of the best


def of(task: Task) -> set[str]:
    """Every column that rows of the task may be given in."""
    own = set(task.columns)
    for column, ways in kinds.WAYS.items():
        members = {name for way in ways for name in way}
        if column in own or {name for name in members if name not in kinds.TEXTS} & own:
            own |= members
    return own


def _ways(task: Task, recipe: Recipe, header: Sequence[str]) -> list[tuple[str, ...]]:
    """The columns to look for: one tuple for each way of giving what the task wants, the preferred first."""
    lower = {name.lower() for name in header}
    own = tuple(task.columns)
    for column, ways in kinds.WAYS.items():
        members = {name for way in ways for name in way}
        special = {name for way in ways for name in way if name not in kinds.TEXTS}
        if column not in own and not special & set(own):
            continue
        rest = tuple(name for name in own if name not in members)
        if column == "completion":
            given = any(getattr(recipe.data, name, "") for name in members)
            if not given and "instruction" in lower and lower & set(kinds.ALIASES["input"]) and "prompt" not in lower:
                return [ways[2], ways[0]]
            return [ways[1]] if not given and MESSAGES in header else [ways[0]]
        chosen = [way for way in ways if any(getattr(recipe.data, name, "") for name in way if name in special)] or ways
        return [(*way, *rest) if "text" in way else (*way, "text", *rest) for way in chosen]
    return [own]


def _match(task: Task, recipe: Recipe, header: Sequence[str], way: Sequence[str]) -> tuple[dict[str, str], list[str], list[str]]:
    names: dict[str, str] = {}
    problems: list[str] = []
    mends: list[str] = []
    if way == (MESSAGES,):
        if not any(name.lower() in task.columns["completion"] for name in header):
            return {MESSAGES: MESSAGES}, [], []
        return (
            {},
            ['there are both chat "messages" and a completion'],
            ["--set data.prompt=... --set data.completion=..., or take one of them out"],
        )
    for column in way:
        aliases = task.columns.get(column) or kinds.ALIASES.get(column, (column,))
        wanted = getattr(recipe.data, column, "")
        optional = column in task.optional
        if column == "text" and "tokens" in way:
            optional, aliases = True, ()  # only a column of that very name is the text that the tokens are of
        if wanted:
            candidates = [name for name in header if name == wanted]
            near = did_you_mean(wanted, header)
        else:
            free = [name for name in header if name not in names.values()]
            fits = ([n for n in free if n == column], [n for n in free if n.lower() == column], [n for n in free if n.lower() in aliases])
            candidates = next((names_found for names_found in fits if names_found), [])
            near = next((hint for alias in aliases if (hint := did_you_mean(alias, free))), "")
        if len(candidates) == 1:
            names[column] = candidates[0]
        elif candidates:
            problems.append(f"{column}: more than one column could be it: {', '.join(candidates)}")
            mends.append(f"--set data.{column}={candidates[0]}")
        elif wanted or not optional:
            problems.append(f'{column}: no column "{wanted}"{near}' if wanted else f"{column}: none of {', '.join(aliases)}{near}")
            mends.append(f"--set data.{column}=COLUMN")
    return names, problems, mends


def _group(recipe: Recipe, names: Mapping[str, str], tables: Sequence[Table]) -> str:
    """The column whose rows stay in one split: the one named, else "group", else the title of a question's article, else its context."""
    free = [name for name in tables[0].columns if name not in names.values()]
    if wanted := recipe.data.group:
        if wanted not in tables[0].columns:
            raise DataError(f'{tables[0].file} has no column "{wanted}"{did_you_mean(wanted, tables[0].columns)}', mend="check data.group")
        return wanted
    found = next((name for name in (GROUP, *(("title",) if "answers" in names else ())) if name in free), "")
    found = found or (names["context"] if "answers" in names else "")
    if not found or not all(found in table.columns for table in tables):
        return ""
    count = len({str(row.get(found)) for table in tables for _, row in table.rows})
    if count < FEWEST_GROUPS:
        progress.note(f'the column "{found}" has {count} values, too few to cut splits by; --set data.group={found} insists')
        return ""
    progress.note(f'rows with the same "{found}" stay in one split ({count:,} of them; data.group)')
    return found


def rows(table: Table, columns: Columns) -> tuple[list[dict[str, Any]], list[Bad], list[Bad]]:
    """(rows in the task's own columns, with `row` and `file` (and `group`); those that lack something; what was mended and is used)."""
    readers = {column: kinds.OF_TASK.get((columns.task, column), kinds.KINDS[column]) for column in columns.names}
    kept: list[dict[str, Any]] = []
    bad: list[Bad] = []
    trimmed = 0
    for number, source in table.rows:
        row: dict[str, Any] = {}
        missing: list[str] = []
        for column, name in columns.names.items():
            value, problem = readers[column](source.get(name), table.classes.get(name))
            if problem:
                missing.append(problem)
            elif column in ("label", "intent"):
                trimmed += value != source[name] and isinstance(source[name], str)
            row[column] = value
        if missing:
            bad.append(Bad(table.file, number, " and ".join(missing)))
        else:
            group = _short(str(source.get(columns.group) or "").strip())
            kept.append({**row, "row": number, "file": table.file, **({GROUP: group} if group else {})})
    if trimmed:
        progress.note(f"{table.file}: {trimmed:,} label{'s' if trimmed > 1 else ''} had blanks around, which were cut off")
    if empty := [row["row"] for row in kept if row.get("labels") == []]:
        progress.note(f"{table.file}: {len(empty):,} row{'s' if len(empty) > 1 else ''} without any label ({lines(len(empty), empty)})")
    kept, broken, mended = _joined(table.file, kept, columns)
    return kept, bad + broken, mended


def _short(group: str) -> str:
    """A group as it is, or its digest where it is a whole text."""
    return group if len(group) <= LONGEST_GROUP else blake2b(group.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _joined(file: str, rows: list[dict[str, Any]], columns: Columns) -> tuple[list[dict[str, Any]], list[Bad], list[Bad]]:
    """The rows with the columns that belong together put together; (kept, bad, mended)."""
    bad: list[Bad] = []
    mended: list[Bad] = []
    for needed, make in kinds.JOINS.items():
        if not set(needed) <= columns.names.keys():
            continue
        join = make(rows, lambda what: progress.note(f"{file}: {what}"))
        kept = []
        for row in rows:
            problem, where, mend = join(row)
            if problem:
                bad.append(Bad(file, row["row"], problem, where))
                continue
            kept.append(row)
            if mend:
                mended.append(Bad(file, row["row"], mend))
        rows = kept
    by_reason: dict[str, list[int]] = defaultdict(list)
    for one in mended:
        by_reason[one.reason].append(one.row)
    for reason, at in by_reason.items():
        progress.note(f"{file}: {len(at):,} row{'s' if len(at) > 1 else ''} had {reason} ({lines(len(at), at)})")
    return rows, bad, mended


def key(row: Mapping[str, Any]) -> str:
    """What decides whether two rows are the same: all that is asked, case-folded, with runs of whitespace as one space."""
    return "\x1f".join(map(normalise, _asked(row)))  # no part can hold it: it counts as whitespace


def question(row: Mapping[str, Any]) -> str:
    """All that a row asks: its text (and second text), prompt, or question and context, with a line break between."""
    return "\n".join(_asked(row))


def item(row: Mapping[str, Any], asks: Sequence[str]) -> str | dict[str, str]:
    """What an app would give a bundle that `asks` for these fields: each by name, or the one text."""
    if not row.keys() >= set(asks):
        return question(row)  # a generator's text is its prompt
    return str(row[asks[0]]) if len(asks) == 1 else {name: str(row[name]) for name in asks}


def answer(row: Mapping[str, Any]) -> str:
    """The label; the completion with runs of whitespace as one space; for other rows what is answered, as JSON."""
    if MESSAGES in row:
        return " ".join(str(row[MESSAGES][-1]["content"]).split())
    found = {column: row[column] for column in ANSWERED if column in row}
    if found.keys() == {"completion"}:
        return " ".join(str(row["completion"]).split())
    return str(row["label"]) if found.keys() == {"label"} else json.dumps(found, ensure_ascii=False)


def _asked(row: Mapping[str, Any]) -> list[str]:
    if MESSAGES in row:
        return [instructions.conversation(row[MESSAGES])]
    return [str(row[column]) for column in kinds.ASKED if column in row]


def normalise(text: str) -> str:
    return " ".join(text.casefold().split())


def listed(names: Sequence[str]) -> str:
    shown = ", ".join(name or '""' for name in names[:12])
    return (f"{shown} and {len(names) - 12} more" if len(names) > 12 else shown)[:300]
