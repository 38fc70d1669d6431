"""A bundle on a CPU that is not here: run.py under qemu's user-mode emulation, as the CPU that the bundle's target names.

It tells what is computed there, never how fast. Arm bundles run in a small Arm system of the cache; x86-64 bundles run with this machine's
own Python, as a CPU without the newer instruction sets would.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetune import progress, target
from edgetune.errors import RequestError
from edgetune.profile import Emulator
from edgetune.runtime import sysroot
from edgetune.runtime.process import Finished, run
from edgetune.runtime.runners import Host

ROWS = 32  # golden rows, unless more are asked: an emulated token costs a thousand native ones
LONGEST = 64  # tokens of a row
BASES = {"x86_64": "x86_64", "aarch64": "arm64"}  # the profile whose CPU stands for targets of the user's own


@contextmanager
def host(_on: str, limit: int | None = None) -> Iterator[Host]:
    """Run bundles as their targets' CPUs would; `limit` is how many golden rows count. Raises RequestError."""

    def emulated(bundle: Path, arguments: Sequence[str]) -> Finished:
        facts = json.loads((bundle / "edgetune.json").read_text("utf-8"))
        cpu = cpu_of(facts["target"], facts["architecture"])
        with tempfile.TemporaryDirectory() as scratch:
            copy, rows, every = _shortened(bundle, Path(scratch) / "bundle", limit or ROWS)
            progress.note(
                f"{facts['target']}: {rows} of {every} golden rows, as {cpu.cpu} under qemu-{cpu.qemu}: what it computes, not how fast"
            )
            done = run(copy, [*arguments, "--threads", "1"], *_python(cpu))
        found = done.found and {**done.found, "of": every}
        return Finished(done.exit_code, found, done.stderr, f"qemu-{cpu.qemu} -cpu {cpu.cpu}")

    yield Host("the emulator", emulated)


def cpu_of(name: str, architecture: str) -> Emulator:
    """How the target `name` is emulated; a target of the user's own, which is not at hand, as the plainest of its architecture."""
    profile = target.load(name if name in target.names() else BASES.get(architecture, name))
    if profile.emulator is None:
        raise RequestError(
            f"{name} cannot be emulated: its profile has no [emulator]", mend="edgetune verify BUNDLE --on local, or node for web"
        )
    return profile.emulator


def _python(cpu: Emulator) -> tuple[Sequence[str], Sequence[str] | None, dict[str, str]]:
    """(command of Python, folders of its packages, environment)."""
    program = sysroot.qemu(cpu.qemu)
    if program is None:
        name = BASES[cpu.qemu]
        raise RequestError(f"the {name} emulator is not installed", mend=f"edgetune targets emulator install {name}")
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR") if key in os.environ} | {"LC_ALL": "C.UTF-8"}
    if cpu.qemu == "aarch64":
        root = sysroot.root(cpu.cpu)
        command = [str(program), "-L", str(root), "-cpu", cpu.cpu, str(root / "usr" / "bin" / sysroot.PYTHON)]
        return command, [str(root.parents[1] / "wheels")], environment
    if platform.machine() != cpu.qemu:
        raise RequestError(
            f"{cpu.cpu} is emulated with this machine's own Python, which is of {platform.machine()}", mend="use an x86-64 machine"
        )
    return [str(program), "-cpu", cpu.cpu, sys.executable], None, environment


def _shortened(bundle: Path, copy: Path, most: int) -> tuple[Path, int, int]:
    """(a copy of `bundle` with `most` of its golden rows, evenly over those of at most LONGEST tokens; how many; of how many)."""
    shutil.copytree(bundle.resolve(), copy, copy_function=os.symlink)  # links to a path that holds anywhere
    lines = (bundle / "golden.jsonl").read_text("utf-8").splitlines()
    length: dict[str, Any] = {line: len(json.loads(line)["input_ids"]) for line in lines}
    short = [line for line in lines if length[line] <= LONGEST] or sorted(lines, key=length.__getitem__)[:1]
    kept = [short[i * len(short) // most] for i in range(most)] if len(short) > most else short
    for name in ("golden.jsonl", "run.py"):  # run.py works on the folder that it lies in, and would follow a link
        (copy / name).unlink()
    shutil.copyfile(bundle / "run.py", copy / "run.py")
    (copy / "golden.jsonl").write_text("".join(f"{line}\n" for line in kept), "utf-8")
    return copy, len(kept), len(lines)
