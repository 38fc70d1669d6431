"""Labels of several tasks as one column, `tasks`: from several columns of a table, or from several data sets side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgetune import progress, tasks
from edgetune.data import columns, kinds
from edgetune.data.columns import Columns
from edgetune.data.table import Table
from edgetune.errors import DataError, did_you_mean
from edgetune.recipe import Recipe
from edgetune.sections import DataKeys

TASK = "text-classification"  # what each of several data sets is for

Splits = Mapping[str, list[Table]]


def as_one(table: Table, named: str) -> Table:
    """`table` with one more column that is called as `named` is written (such as "about,urgency") and holds {column: label}. Where `named` is
    no list of columns the table is as it was. Raises DataError for a column that is not there."""
    names = [name.strip() for name in named.split(",")]
    if len(names) < 2 or named in table.columns or not table.columns:
        return table
    if absent := [name for name in names if name not in table.columns]:
        raise DataError(
            f'{table.file} has no column "{absent[0]}" (data.tasks){did_you_mean(absent[0], table.columns)}',
            details=[f"columns found: {columns.listed(table.columns)}"],
            mend="check data.tasks",
        )
    rows = [(number, {**row, named: {name: _label(table, row, name) for name in names}}) for number, row in table.rows]
    return replace(table, columns=(*table.columns, named), rows=rows)


def joined(sets: Mapping[str, Splits], keys: DataKeys) -> dict[str, list[Table]]:
    """The tables of several data sets, by the name of their task, with the columns `text`, perhaps `text_pair`, and `tasks`.

    Raises DataError where one has other splits than another, pairs of texts beside single ones, or columns that nobody knows.
    """
    progress.note(f"{len(sets)} data sets, each a task: {', '.join(sets)}")
    first, *others = sets
    for other in others:
        if lacking := sorted(sets[first].keys() ^ sets[other].keys()):
            without = first if lacking[0] in sets[other] else other
            raise DataError(
                f'the data set "{without}" has no {lacking[0]} file, and another has one',
                mend="give all of them the same files: train, and perhaps validation and test; what none has is cut from train",
            )
    sets = {name: {split: [_within(name, table) for table in tables] for split, tables in splits.items()} for name, splits in sets.items()}
    named = {name: _columns(name, splits, keys) for name, splits in sets.items()}
    paired = [name for name, found in named.items() if "text_pair" in found.names]
    if paired and len(paired) < len(sets):
        single = next(name for name in sets if name not in paired)
        raise DataError(
            f'the data set "{paired[0]}" has pairs of texts, and "{single}" has single ones', mend="adapt a model of its own to each"
        )
    return {split: [_told(name, table, named[name]) for name in sets for table in sets[name][split]] for split in sets[first]}


def _within(name: str, table: Table) -> Table:
    """`table` with the name of its data set before that of its file, which another one may have as well."""
    file = f"{name}/{table.file}"
    return replace(table, file=file, bad=[replace(one, file=file) for one in table.bad])


def _columns(name: str, splits: Splits, keys: DataKeys) -> Columns:
    recipe = Recipe(data=keys.model_copy(update={"tasks": ""}))
    with progress.silent():
        found = columns.find(tasks.get(TASK), recipe, [table for tables in splits.values() for table in tables])
    progress.note(f"{name}: {found}")
    return found


def _told(name: str, table: Table, found: Columns) -> Table:
    kept = {**found.names, **({found.group: found.group} if found.group else {})}
    label = kept.pop("label")
    rows = [
        (number, {**{column: row.get(own) for column, own in kept.items()}, "tasks": {name: _label(table, row, label)}})
        for number, row in table.rows
    ]
    return replace(table, columns=(*kept, "tasks"), rows=rows, classes={})


def _label(table: Table, row: Mapping[str, object], column: str) -> object:
    """The label as it is told, with the name in an integer's place; what is no label is left for `kinds` to refuse."""
    label, problem = kinds.KINDS["label"](row.get(column), table.classes.get(column))
    return row.get(column) if problem else label
