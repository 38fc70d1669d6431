"""What labels mean, in words: the file data.descriptions, and else the label's own name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetune import progress, tasks
from edgetune.data.read import read
from edgetune.errors import DataError, did_you_mean
from edgetune.recipe import Recipe

TASKS = ("text-classification",)  # tasks whose labels are named after what a text says
COLUMNS = ("description", "descriptions", "text", "meaning", "definition")


def rows(recipe: Recipe, labels: Sequence[str]) -> list[dict[str, str]]:
    """Rows with `text` and `label`, in the order of `labels`: each label's descriptions, one or several, or its name as words.

    "card_not_working" says "card not working". Raises DataError for a file that cannot be read, or tells of other labels.
    """
    told = _told(recipe, labels) if recipe.data.descriptions else {}
    if told and len(told) < len(labels):
        progress.note(f"{recipe.data.descriptions} describes {len(told)} of {len(labels)} labels; the others mean what their names say")
    return [{"text": text, "label": label} for label in labels for text in told.get(label) or [_words(label)]]


def _words(label: str) -> str:
    return " ".join(label.replace("_", " ").split()) or label


def _told(recipe: Recipe, labels: Sequence[str]) -> dict[str, list[str]]:
    path = Path(recipe.data.descriptions).expanduser()
    table = read(path, recipe.data.encoding)
    lower = {name.lower(): name for name in table.columns}

    def column(what: str, names: Sequence[str]) -> str:
        found = next((lower[name.lower()] for name in names if name.lower() in lower), None)
        if found is None:
            raise DataError(
                f"{path.name} has no column {what}",
                details=[f"columns: {', '.join(table.columns)}"],
                mend="give a table with the columns label and description",
            )
        return found

    label_of = column("label", (recipe.data.label, *tasks.get(recipe.task).columns["label"]))
    text_of = column("description", [name for name in COLUMNS if name != label_of])
    found: dict[str, list[str]] = {}
    for number, row in table.rows:
        label, text = (str(row.get(name) or "").strip() for name in (label_of, text_of))
        if label not in labels:
            raise DataError(f'{path.name}, row {number}: no label "{label}" in the data{did_you_mean(label, labels)}', mend="mend that row")
        if not text:
            raise DataError(f'{path.name}, row {number}: no description of "{label}"', mend="mend that row, or leave it out")
        found.setdefault(label, []).append(text)
    return found
