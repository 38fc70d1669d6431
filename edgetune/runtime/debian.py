"""Debian packages unpacked into a folder, without root: apt-get fetches them (and checks Debian's signatures), dpkg unpacks them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgetune.artifact import file_digest
from edgetune.errors import RequestError, StageError

RELEASE = "bookworm"
SOURCES = (
    ("http://deb.debian.org/debian", RELEASE),
    ("http://deb.debian.org/debian-security", f"{RELEASE}-security"),
)
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CONFIGURATION = """
Dir::State "{here}/state";
Dir::State::status "{here}/status";
Dir::Cache "{here}/cache";
Dir::Etc::sourcelist "{here}/sources.list";
Dir::Etc::sourceparts "{here}/empty";
Dir::Etc::parts "{here}/empty";
Dir::Etc::main "{here}/empty/apt.conf";
Dir::Etc::preferencesparts "{here}/empty";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"""


def fetch(packages: Sequence[str], architecture: str, downloads: Path) -> dict[str, Path]:
    """The .deb files of `packages` for `architecture` (Debian's name of it), by package, kept in `downloads`.

    Raises RequestError where there is no apt-get or no key of Debian, StageError when they cannot be fetched.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise RequestError(f"there is no {tool} on this machine", mend="use Debian or Ubuntu, on a machine or in a container")
    if not KEYRING.is_file():
        raise RequestError(f"Debian's keys are not on this machine ({KEYRING})", mend="apt install debian-archive-keyring")
    here = downloads.resolve() / f"apt-{architecture}"
    for name in ("state/lists/partial", "cache/archives/partial", "empty", "debs"):
        (here / name).mkdir(parents=True, exist_ok=True)
    (here / "status").touch()
    (here / "apt.conf").write_text(CONFIGURATION.format(here=here, architecture=architecture), "utf-8")
    lines = [f"deb [arch={architecture} signed-by={KEYRING}] {address} {suite} main\n" for address, suite in SOURCES]
    (here / "sources.list").write_text("".join(lines), "utf-8")
    found = {name: next((here / "debs").glob(f"{name}_*.deb"), None) for name in packages}
    if missing := [name for name, path in found.items() if path is None]:
        _apt(["update"], here)
        _apt(["download", *missing], here)
    return {name: next((here / "debs").glob(f"{name}_*.deb")) for name in packages}


def unpack(files: Sequence[Path], place: Path) -> None:
    for file in files:
        done = subprocess.run(["dpkg", "-x", str(file), str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            file.unlink()  # so that the next try fetches it again
            raise StageError(f"cannot unpack {file.name}", details=done.stderr.splitlines()[-5:], mend="run the command again")


def described(files: dict[str, Path]) -> dict[str, dict[str, str]]:
    """Version and sha256 of each package."""
    return {name: {"version": path.name.split("_")[1].replace("%3a", ":"), "sha256": file_digest(path)} for name, path in files.items()}


def _apt(arguments: Sequence[str], here: Path) -> None:
    command = ["apt-get", "--quiet=2", *arguments]
    environment = {**os.environ, "APT_CONFIG": str(here / "apt.conf"), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=here / "debs", env=environment, capture_output=True, text=True, check=False)
    problems = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W: Failed"))]
    if done.returncode or any(line.startswith("W: Failed") for line in problems):
        raise StageError(
            f"apt-get {arguments[0]} failed",
            details=problems[-5:] or done.stderr.splitlines()[-5:],
            mend="is there a network? run it again",
        )
