"""A bundle's run.py in a fresh process that can import onnxruntime (and packages of its providers), tokenizers, numpy and the standard
library, and nothing else.

What the device will have is all that it gets: no site-packages hooks (-S), no environment and no script folder on the path (-I).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ALLOWED = ("onnxruntime", "tokenizers", "numpy")
BOOTSTRAP = """
import runpy, sys

class OnlyWhatTheDeviceHas:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in (*ALLOWED, "__main___answers") or top in sys.stdlib_module_names or top.startswith("_sysconfigdata"):
            return None
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ALLOWED = sys.argv[1].split(",")
sys.path += sys.argv[2].split(",")
sys.meta_path.insert(0, OnlyWhatTheDeviceHas())
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Finished:
    """How the process ended; `found` is the JSON on its last line of `output`, when there is any; `where` it ran, if that is special."""

    exit_code: int
    found: dict[str, Any] | None
    stderr: str
    where: str = ""
    output: str = ""


def run(
    bundle: Path,
    arguments: Sequence[str],
    python: Sequence[str] = (sys.executable,),
    packages: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
    given: str = "",
) -> Finished:
    """`python run.py ARGUMENTS` of `bundle`, in a fresh process; `packages` are the folders that hold ALLOWED (None: as here)."""
    from edgetune.runtime.worker import PLUGINS

    allowed = (*ALLOWED, *PLUGINS.values())
    folders = packages or [*dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in map(find_spec, allowed) if spec and spec.origin)]
    command = [*python, "-I", "-S", "-B", "-c", BOOTSTRAP, ",".join(allowed), ",".join(folders)]
    return start([*command, str(bundle.resolve() / "run.py"), *arguments], environment, given)


def start(command: Sequence[str], environment: Mapping[str, str] | None = None, given: str = "") -> Finished:
    """`command` in a fresh process, which reads `given`."""
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**(os.environ if environment is None else environment), "ORT_DISABLE_TELEMETRY": "1"},
        check=False,
    )
    return Finished(done.returncode, last_json(done.stdout), done.stderr.strip(), output=done.stdout)


def last_json(output: str) -> dict[str, Any] | None:
    """The JSON on the last line of `output`; None when there is none."""
    lines = output.splitlines()
    try:
        found = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        return None
    return found
