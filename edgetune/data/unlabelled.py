"""Texts without labels: the lines of a .txt file, or the text column of a table."""

from __future__ import annotations

from pathlib import Path

from edgetune import progress, tasks
from edgetune.data.forms import FORMS
from edgetune.data.kinds import ASKED
from edgetune.data.read import read
from edgetune.errors import DataError
from edgetune.recipe import Recipe
from edgetune.tasks.rows import LABELLED


def texts(recipe: Recipe, key: str) -> list[str]:
    """The different texts at the recipe's `key`, such as compress.unlabelled, in order; none when it is not set. Raises DataError for what
    cannot be read."""
    section, name = key.split(".")
    given: str = getattr(getattr(recipe, section), name)
    if not given:
        return []
    place = Path(given).expanduser()
    if not place.exists():
        raise DataError(f"there is nothing at {place} ({key})", mend="give a .txt file, a table, or a folder of them")
    files = sorted(path for path in place.iterdir() if path.suffix in FORMS) if place.is_dir() else [place]
    found = [text for path in files for text in (_lines(path, recipe) if path.suffix == ".txt" else _column(path, recipe))]
    kept = list(dict.fromkeys(text.strip() for text in found if text.strip()))
    if not kept:
        raise DataError(f"{place} holds no text", mend="give a .txt file with a text a line, or a table with a text column")
    progress.note(f"{place}: {len(kept):,} unlabelled texts, {len(found) - len(kept):,} empty or repeated ones left out")
    return kept


def _lines(path: Path, recipe: Recipe) -> list[str]:
    try:
        return path.read_text(recipe.data.encoding).splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not {recipe.data.encoding} at byte {error.start}", mend="name its encoding: --encoding ...") from None


def _column(path: Path, recipe: Recipe) -> list[str]:
    table = read(path, recipe.data.encoding)
    asked = next((column for column in ASKED if column in tasks.get(recipe.task).columns), "text")
    names = _names(recipe, asked)
    lower = {name.lower(): name for name in table.columns}
    name = next((lower[name.lower()] for name in names if name.lower() in lower), None)
    labelled = [lower[label.lower()] for column in LABELLED for label in _names(recipe, column) if label.lower() in lower]
    if of := next((label for label in labelled if label != name and any(row.get(label) not in (None, "") for _, row in table.rows)), ""):
        raise DataError(
            f'{path} has labels (column "{of}"), and is given as texts without labels',
            mend="leave the column out, or learn from it: --data",
        )
    if name is None and len(table.columns) == 1:
        name = table.columns[0]
    if name is None:
        raise DataError(f"{path} has no text column", details=[f"columns: {', '.join(table.columns)}"], mend="name it: --text COLUMN")
    if table.bad:
        progress.warn(f"{path}: {len(table.bad)} rows could not be read and were left out")
    return [str(row[name]) for _, row in table.rows if row.get(name)]


def _names(recipe: Recipe, column: str) -> list[str]:
    """Those under which a column of the task is found; none where it has no such column."""
    columns = tasks.get(recipe.task).columns
    return [name for name in (getattr(recipe.data, column), *columns[column]) if name] if column in columns else []
