"""A disk that fills up, and files that lose their end: told, never taken for whole, and mended by running again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import victim

from edgetune.recipe import Recipe

KEYS = {"adapt__checkpoint_every": 15, "adapt__epochs": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model and data."""
    return tiny.problem(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    return resume(tiny.recipe(folder, output=str(folder / "whole"), **KEYS), folder / "whole.txt")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, without room."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(place)], capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def leave(disk: Path, room: int) -> None:
    """Resize `disk` so that `room` bytes are free, and a page or two."""
    has = os.statvfs(disk)
    size = (has.f_blocks - has.f_bfree) * has.f_frsize + room
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def resume(recipe: Recipe, log: Path) -> dict[str, Any]:
    victim.finish(victim.start(victim.run, recipe, log=log), log)
    return victim.outcome(Path(recipe.output))


def failed(recipe: Recipe, folder: Path, until: str = "export", largest: int = 0) -> dict[str, Any]:
    told, log = folder / "told.json", folder / "fail.txt"
    victim.finish(victim.start(victim.fail, recipe, told, until, largest, log=log), log)
    return json.loads(told.read_text("utf-8"))


def fills_up(folder: Path, disk: Path, whole: dict[str, Any], early: list[int], late: list[int]) -> set[str]:
    """Fail with so many kB of room, until training is over and then after it; returns the last stage that was done each time."""
    recipe, log, reached = tiny.recipe(folder, output=str(disk / "run"), **KEYS), folder / "filled.txt", set[str]()
    manifest = disk / "run" / "manifest.json"
    for rooms, until in ((early, "adapt"), (late, "export")):
        for room in rooms:
            leave(disk, room << 10)
            told = failed(recipe, folder, until)
            if told["code"] == 0:
                break
            assert told["code"] in (2, 3), told
            assert "disk full" in told["lines"][0] or "No space left on device" in told["lines"][0], told
            assert len(told["lines"]) <= 20
            reached.add(next(reversed(json.loads(manifest.read_text("utf-8"))["stages"]), "nothing") if manifest.exists() else "nothing")
        leave(disk, 100 << 20)
        victim.finish(victim.start(victim.run, recipe, False, "adapt", log=log), log)
    assert resume(recipe, log) == whole
    return reached


def test_the_disk_fills_up(folder: Path, disk: Path, whole: dict[str, Any]) -> None:
    assert fills_up(folder, disk, whole, [8, 300], [60, 200]) >= {"nothing", "prepare", "adapt"}


@pytest.mark.slow
def test_the_disk_fills_up_everywhere(folder: Path, disk: Path, whole: dict[str, Any]) -> None:
    reached = fills_up(folder, disk, whole, list(range(4, 1000, 40)), list(range(4, 500, 12)))
    assert reached >= {"nothing", "prepare", "adapt", "merge", "graph:opset20-ir10"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_file_may_not_grow(folder: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    """Without root: the weights are cut off while they are written."""
    recipe = tiny.recipe(folder, output=str(tmp_path / "run"), **KEYS)
    told = failed(recipe, tmp_path, largest=60_000)
    assert told["code"] == 3
    assert "file too large" in told["lines"][0].lower()
    stages = json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))["stages"]
    assert list(stages) == ["prepare"]
    assert resume(recipe, tmp_path / "log.txt") == whole
