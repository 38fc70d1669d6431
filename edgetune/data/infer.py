"""Which task the data is for, when nobody said."""

from __future__ import annotations

from typing import Any

from edgetune import progress
from edgetune.data import columns, find, kinds
from edgetune.data.table import Table
from edgetune.errors import DataError
from edgetune.recipe import Recipe
from edgetune.tasks import TASKS, Task

LOOKED_AT = 200  # rows
MOST_TASKS = 6  # that an error names

Rank = tuple[int, int, int]


def task(recipe: Recipe) -> str:
    """The task whose columns the data has, which is said: that of most columns, and of those the one whose names fit best.

    Raises DataError when no task fits, or several do as well.
    """
    with progress.silent():
        found, _ = find.tables(recipe.data)
    table = found["train"][0]
    tried = {name: _match(one, recipe, table) for name, one in TASKS.items()}
    ranks = {name: _rank(TASKS[name], table, names) for name, (names, problem) in tried.items() if not problem}
    if not ranks:
        details = [f"{name}: {problem}" for name, (_, problem) in list(tried.items())[:MOST_TASKS]]
        raise DataError(
            f"{table.file}: no task has these columns",
            details=[*details, f"columns found: {columns.listed(table.columns)}"],
            mend="give the task and name its columns, such as  --task text-classification --text COLUMN --label COLUMN",
        )
    best = max(ranks.values())
    names = [name for name, rank in ranks.items() if rank == best]
    if len(names) > 1:
        raise DataError(
            f"{table.file} can be for more than one task: {', '.join(names)}",
            details=[f"{name}: {TASKS[name].title}" for name in names],
            mend=f"say which:  --task {names[0]}",
        )
    progress.note(f"no task given: read as {names[0]}, whose columns the data has")
    return names[0]


def _match(task: Task, recipe: Recipe, table: Table) -> tuple[dict[str, str], str]:
    """(column -> name in the file, why the task does not fit or "")."""
    allowed = columns.of(task)
    if foreign := [column for column in kinds.KINDS if getattr(recipe.data, column, "") and column not in allowed]:
        return {}, f"has no {' and no '.join(foreign)}"
    names, problems, _ = columns.best(task, recipe, table.columns)
    if problems:
        return names, problems[0]
    sample = [row for _, row in table.rows[:LOOKED_AT]]
    for column, name in names.items():
        values = [row.get(name) for row in sample]
        read = kinds.OF_TASK.get((task.name, column), kinds.KINDS[column])
        wrong = [problem for value in values if (problem := read(value, table.classes.get(name))[1])]
        if len(wrong) * 2 > len(values):
            return names, f"most rows have {wrong[0]}"
        if column == "labels" and not any(map(_several, values)):
            return names, f'"{name}" holds one label a row'
        if column == "label" and sum(map(_fraction, values)) * 2 > len(values):
            return names, f'"{name}" holds numbers'
    return names, ""


def _rank(task: Task, table: Table, names: dict[str, str]) -> Rank:
    """(columns that hold what only this task reads, columns, columns that are called as the task calls them)."""
    special = sum((task.name, column) in kinds.OF_TASK for column in names)
    return special, len(names), sum(column == name.lower() for column, name in names.items())


def _several(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, str) and (value.lstrip().startswith("[") or "|" in value or ";" in value))


def _fraction(value: Any) -> bool:
    """Whether this is a number that is not whole: no name of a class."""
    try:
        return not float(value).is_integer()
    except (TypeError, ValueError, OverflowError):
        return False
