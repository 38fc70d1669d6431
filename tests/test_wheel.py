"""The wheel, installed outside of the checkout: targets and templates ride in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    pytest.importorskip("build", reason="the package build is not installed (extra test)")
    pytest.importorskip("hatchling", reason="the package hatchling is not installed (extra test)")
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".git", ".venv", "runs", "__pycache__", ".*_cache")
    shutil.copytree(checkout, folder / "source", ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(folder / "source")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (folder / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that has the wheel, and the packages of this one but not this checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # A path in a .pth file is only put on sys.path: .pth files inside it (such as that of an editable install) are not read.
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(folder / "bin" / "python"),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin"


def edgetune(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(installed / "edgetune"), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_in_it(wheel: Path, checkout: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = {
        path.relative_to(checkout).as_posix()
        for path in (checkout / "edgetune").rglob("*")
        if path.is_file() and not any(part == "__pycache__" or part.startswith(".") for part in path.parts)
    }
    assert package <= names, "every file of the package, templates included"
    assert {f"edgetune/_targets/{path.name}" for path in (checkout / "targets").glob("*.toml")} <= names
    assert any("LICENSE" in name for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "examples/"))]


def test_it_works_outside_of_the_checkout(installed: Path, tmp_path: Path, checkout: Path) -> None:
    from edgetune import __version__

    assert edgetune(installed, tmp_path, "--version") == f"edgetune {__version__}\n"
    listed = json.loads(edgetune(installed, tmp_path, "targets", "list", "--json"))
    assert {row["name"] for row in listed} == {path.stem for path in (checkout / "targets").glob("*.toml")}
    assert all(row["title"] and row["provider"] and row["verified"] for row in listed)
    assert edgetune(installed, tmp_path, "targets", "show", "arm64", "--json")
    doctor = json.loads(edgetune(installed, tmp_path, "doctor", "--json"))
    assert doctor["edgetune"] == __version__
    assert set(doctor["extras"]) == {"demo", "explain", "qnn", "test"}


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path, checkout: Path) -> None:
    python = [str(installed / "python"), "-c", "import edgetune, edgetune.target as t; print(edgetune.__file__); print(t._folder())"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(python, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    for line in done.stdout.splitlines():
        assert line.startswith(str(installed.parent))
        assert not line.startswith(str(checkout))
