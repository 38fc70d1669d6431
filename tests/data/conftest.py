from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune import data, progress, tasks
from edgetune.errors import DataError
from edgetune.recipe import Recipe, load


def task(name: str, columns: dict[str, tuple[str, ...]], optional: tuple[str, ...] = ()) -> tasks.Task:
    """A row of the table, for data alone."""
    return tasks.Task(
        name=name,
        title=f"title of {name}",
        family="encoder",
        auto_class="",
        columns=columns,
        metric="",
        higher_is_better=True,
        example="{}",
        optional=frozenset(optional),
    )


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """recipe(path, "text-generation", **{"data.label": "x"})"""

    def make(path: Path | str, task: str = "text-classification", **settings: Any) -> Recipe:
        return load(None, {"task": task, "data.path": str(path), **settings})

    return make


@pytest.fixture
def refused(recipe: Callable[..., Recipe]) -> Callable[..., str]:
    """The error that the data is refused with, as text: at most 20 lines, exit 2."""

    def text(path: Path | str, task: str = "text-classification", **settings: Any) -> str:
        with pytest.raises(DataError) as caught:
            data.load(recipe(path, task, **settings))
        error = caught.value
        assert error.exit_code == 2
        shown = "\n".join([str(error), *error.details, error.mend or ""])
        assert len(shown.splitlines()) <= 20
        assert max(map(len, shown.splitlines())) < 500
        return shown

    return text


@pytest.fixture
def loaded(recipe: Callable[..., Recipe]) -> Callable[..., tuple[data.Loaded, str]]:
    """What `load` gives, and all that it said meanwhile."""

    def both(path: Path | str, task: str = "text-classification", **settings: Any) -> tuple[data.Loaded, str]:
        with progress.collecting() as notes:
            found = data.load(recipe(path, task, **settings))
        return found, "\n".join(notes)

    return both


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """folder(**{"train.csv": "text,label\\n..."}) writes the files; str or bytes."""

    def write(**files: str | bytes) -> Path:
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return write


@pytest.fixture(scope="session")
def real() -> Callable[[str], Path]:
    """The folder of a real data set; skips where there is none."""
    root = Path(os.environ.get("EDGETUNE_DATA", Path(__file__).parents[3] / "shared" / "data"))

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"no real data set {name} (set EDGETUNE_DATA)")
        return root / name

    return find
