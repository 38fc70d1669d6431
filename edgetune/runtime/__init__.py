"""Running what was built: the worker that ships in every bundle, its checks and its measurement.

`worker` is copied into each bundle as run.py, and the task's module of `answers` beside it; they are imported here for `predict`: one
source of truth. What a bundle brings is never run by edgetune itself, only in a process of its own.
"""

from __future__ import annotations

import ast
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.runtime.worker import Bundle


def load(folder: Path, *, threads: int | None = None, provider: str | None = None) -> Bundle:
    """The bundle in `folder`, ready to predict, with edgetune's own worker. Raises RequestError."""
    from edgetune.errors import RequestError
    from edgetune.runtime.worker import Bundle, BundleError

    try:
        return Bundle(folder, threads, provider)
    except BundleError as error:
        raise RequestError(str(error)) from None


def copy_programs(task: str, folder: Path) -> None:
    """Put run.py into the bundle `folder`, and into its `answers` what run.py needs for `task`."""
    here = Path(__file__).parent
    shutil.copyfile(here / "worker.py", folder / "run.py")
    (folder / "answers").mkdir()
    needed = [task.replace("-", "_")]
    for name in needed:
        source = here / "answers" / f"{name}.py"
        shutil.copyfile(source, folder / "answers" / source.name)
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level and node.module not in needed:
                needed.append(str(node.module))


def available(provider: str) -> bool:
    """Whether this machine has the execution provider `provider`: built into its onnxruntime, or as a package beside it."""
    import os

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    from edgetune.runtime.worker import plugged

    return provider in onnxruntime.get_available_providers() or bool(plugged(provider))


def measurable(provider: str) -> bool:
    """Whether times and memory of `provider` mean something here: it is `available`, and not a simulator."""
    from edgetune.runtime.worker import SIMULATED, architecture

    return available(provider) and SIMULATED.get(provider) != architecture()


# Providers whose graphs are compiled ahead of time where their tools are installed: a function (graph, out, min_share, options) -> facts.
COMPILERS = {"QNNExecutionProvider": "edgetune.runtime.qnn:compile"}
