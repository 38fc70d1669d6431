"""What is fetched once and kept for all runs: emulators, their system roots, JavaScript packages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from edgetune.errors import RunError
from edgetune.workspace import write_json


def folder() -> Path:
    """$EDGETUNE_CACHE, or edgetune in the user's cache folder (XDG Base Directory Specification)."""
    if asked := os.environ.get("EDGETUNE_CACHE"):
        return Path(asked)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgetune"


def installed(name: str) -> Path | None:
    """The folder `name` of the cache when it is complete."""
    place = folder() / name
    return place if (place / "installed.json").is_file() else None


def facts(place: Path) -> dict[str, Any]:
    """What was said of an installed folder when it was made."""
    found: dict[str, Any] = json.loads((place / "installed.json").read_text("utf-8"))
    return found


def install(name: str, key: Mapping[str, Any], make: Callable[[Path, Path], Mapping[str, Any]]) -> Path:
    """The folder `name` of the cache, made by `make(place, downloads)` unless it is there for the same `key`.

    `make` fills `place` and returns facts; installed.json is written last, so that it means "complete". `downloads` outlives a
    failure, so that nothing is fetched twice, and goes after success. Raises RunError when the cache cannot be written.
    """
    place, downloads = folder() / name, folder() / "downloads" / name
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot write to {folder()}: {error.strerror}", mend="name another folder: EDGETUNE_CACHE=DIR") from None
    with FileLock(downloads.with_suffix(".lock")):
        if installed(name) and facts(place)["key"] == dict(key):
            return place
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        found = make(place, downloads)
        write_json(place / "installed.json", {"key": dict(key), **found})
        shutil.rmtree(downloads, ignore_errors=True)
    return place
