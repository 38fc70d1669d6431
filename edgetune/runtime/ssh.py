"""A bundle on another machine, over plain ssh: copied to a temporary folder there, run, taken away again.

Asks for no password (BatchMode): keys or an agent must do. The machine needs a POSIX shell, tar, Python 3.9 and the three packages
of run.py.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from edgetune import progress
from edgetune.errors import RequestError, StageError
from edgetune.runtime import kit
from edgetune.runtime.process import Finished, last_json
from edgetune.runtime.runners import Host

TIMEOUT = 15  # s, to connect
UNREACHABLE = 255  # ssh's own exit code
NO_PYTHON, OLD_PYTHON = 97, 96
INSTALL = "-m pip install onnxruntime tokenizers numpy"
OPEN = f"""
python=$(command -v {{python}}) || exit {NO_PYTHON}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' || exit {OLD_PYTHON}
folder=$(mktemp -d "${{{{TMPDIR:-/tmp}}}}/edgetune.XXXXXX") || exit 1
printf '%s\\n%s\\n' "$python" "$folder"
"""


@dataclass(frozen=True)
class Remote:
    """`address` is user@host for messages, `ssh` the command up to the remote one, `folder` the temporary folder there."""

    address: str
    ssh: tuple[str, ...]
    python: str = ""
    folder: str = ""

    @property
    def mend(self) -> str:
        return f"{shlex.join(self.ssh)} {shlex.quote(self.python)} {INSTALL}"

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run `script` there. Raises RequestError when ssh itself fails."""
        done = subprocess.run(
            self.command(script), stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        if done.returncode == UNREACHABLE:
            raise self.unreachable(done.stderr)
        return done

    def command(self, script: str) -> list[str]:
        return [*self.ssh, f"sh -c {shlex.quote(script)}"]

    def copy(self, source: Path, name: str) -> str:
        """Copy the folder `source` to `name` in the temporary folder; returns where that is."""
        place = f"{self.folder}/{name}"
        script = f"mkdir -p {shlex.quote(place)} && tar -xzf - -C {shlex.quote(place)}"
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(self.command(script), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors)
            assert process.stdin is not None
            try:
                with process.stdin as pipe, tarfile.open(fileobj=pipe, mode="w|gz", dereference=True) as archive:
                    archive.add(source, arcname=".")
            except BrokenPipeError:
                pass  # its exit code tells
            if process.wait():
                details = _read(errors).splitlines()[-5:]
                raise RequestError(f"cannot copy {source.name} to {self.address}", details=details, mend="is the disk there full?")
        return place

    def python_runs(self, script: str, *arguments: str) -> str:
        return shlex.join([self.python, "-B", script, *arguments])

    def unreachable(self, stderr: str) -> RequestError:
        return RequestError(
            f"cannot reach {self.address}",
            details=stderr.strip().splitlines()[-5:],
            mend=f"this must work without a question:  {shlex.join(self.ssh)} true",
        )


@contextmanager
def connected(where: str, python: str | None = None) -> Iterator[Remote]:
    """The machine `where` (ssh://[user@]host[:port]) with a temporary folder that is gone afterwards.

    `python` is the interpreter there; without it python3 or python. Raises RequestError.
    """
    remote = _address(where)
    asked = _quoted(python) if python else "python3 || command -v python"
    done = remote.shell(OPEN.format(python=asked))
    if done.returncode == NO_PYTHON:
        what = f"no {python}" if python else "no python3"
        raise RequestError(f"{what} on {remote.address}", mend="install Python 3.9 or newer there, or name it with --python PATH")
    if done.returncode == OLD_PYTHON:
        raise RequestError(f"the Python of {remote.address} is older than 3.9", mend="name a newer one with --python PATH")
    lines = done.stdout.splitlines()
    if done.returncode or len(lines) < 2:
        raise RequestError(f"cannot make a temporary folder on {remote.address}", details=done.stderr.splitlines()[-5:])
    remote = Remote(remote.address, remote.ssh, *lines[-2:])
    try:
        yield remote
    finally:
        subprocess.run(remote.command(f"rm -rf {shlex.quote(remote.folder)}"), stdin=subprocess.DEVNULL, capture_output=True, check=False)


@contextmanager
def host(where: str, python: str | None = None) -> Iterator[Host]:
    """Run bundles on the machine `where`; each is copied once."""
    with connected(where, python) as remote:
        places: dict[Path, str] = {}

        def run(bundle: Path, arguments: Sequence[str]) -> Finished:
            place = places.get(bundle) or places.setdefault(bundle, remote.copy(bundle, f"bundle-{len(places)}"))
            done = remote.shell(remote.python_runs(f"{place}/run.py", *arguments))
            return Finished(done.returncode, last_json(done.stdout), done.stderr.strip())

        yield Host(remote.address, run, remote.mend)


def turns(where: str, bundles: Sequence[Path], plan: Mapping[str, Any], python: str | None = None) -> dict[str, Any]:
    """Measure `bundles` on the machine `where` as `plan` says -> `edgetune.turns/1`. Raises RequestError, StageError."""
    with connected(where, python) as remote, tempfile.TemporaryDirectory() as scratch:
        kit.fill(Path(scratch), bundles, plan)
        place = remote.copy(Path(scratch), "kit")
        with tempfile.TemporaryFile() as errors:
            command = remote.command(remote.python_runs(f"{place}/measure.py"))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
            assert process.stdout is not None
            with process, progress.bar(f"measuring on {remote.address}", plan["rounds"] * len(bundles)) as bar:
                for line in process.stdout:
                    if line.startswith("turn "):
                        bar.advance(text=line.rpartition(": ")[2].strip())
            stderr = _read(errors)
        if process.returncode == UNREACHABLE:
            raise remote.unreachable(stderr)
        if process.returncode:
            kind = RequestError if process.returncode == 2 else StageError
            details = stderr.strip().splitlines()[-5:]
            raise kind(f"cannot measure on {remote.address}", details=details, mend=remote.mend if "pip install" in stderr else None)
        found = last_json(remote.shell(f"cat {shlex.quote(place)}/result.json").stdout)
        if found is None:
            raise RequestError(f"{remote.python} on {remote.address} wrote no result", mend="is it a Python? --python PATH names another")
        return found


def _address(where: str) -> Remote:
    if shutil.which("ssh") is None:
        raise RequestError("there is no ssh on this machine", mend="install an OpenSSH client (Debian: apt install openssh-client)")
    wrong = RequestError(f"{where} is not an address", mend="--on ssh://user@host or ssh://user@host:port")
    try:
        parts = urlsplit(where)
        name, port, user = parts.hostname, parts.port, parts.username
    except ValueError:
        raise wrong from None
    if not name or name.startswith("-") or (user or "").startswith("-") or parts.password or parts.path.strip("/") or parts.query:
        raise wrong
    flags = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={TIMEOUT}"]
    flags += ["-p", str(port)] if port else []
    address = f"{user}@{name}" if user else name
    return Remote(address, ("ssh", *flags, address))


def _quoted(path: str) -> str:
    """For the shell there; a leading ~/ stays its business."""
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
