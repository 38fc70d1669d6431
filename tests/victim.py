"""What the fault tests do in a process of its own, so that it can be killed. A server that has loaded the libraries forks it.

This module is imported by every such process: what it needs beyond the standard library is imported inside functions.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "torch",
        "transformers",
        "onnxruntime",
        "sklearn.metrics",
        "scipy.stats",
        "edgetune.pipeline",
        "edgetune.stages.adapt",
        "edgetune.stages.export",
    ]
)
PATIENCE = 120  # seconds


def start(function: Callable[..., None], *arguments: Any, log: Path) -> ForkServerProcess:
    """`function(*arguments)` in a process of its own, whose output goes to the end of `log`."""
    process = FORKS.Process(target=_child, args=(function, arguments, log), daemon=True)
    process.start()
    return process


def finish(process: ForkServerProcess, log: Path) -> None:
    """Wait for `process`; a failure shows what it said."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
    assert process.exitcode == 0, f"exit {process.exitcode}\n{log.read_text()[-4000:]}"


def run(recipe: Any, real: bool = False, until: str = "export") -> None:
    """The pipeline up to the bundle; unless `real`, with the exporter that traces in a tenth of the time."""
    import torch

    from edgetune import pipeline
    from edgetune.graph import export

    torch.set_num_threads(1)
    if not real:
        export.EXPORTERS = {"torchscript": export.EXPORTERS["torchscript"]}
    pipeline.run(recipe, until)


def photograph(recipe: Any, album: Path) -> None:
    """`run`, with a copy of the run directory in `album` as it was before every change that Python makes to it: what a kill leaves."""
    folder = Path(recipe.output).resolve()
    busy, seen, taken = False, [("nothing", 0, 0)], 0

    def looks() -> list[tuple[str, int, int]]:
        every = ((path, path.stat()) for path in sorted(folder.rglob("*")))
        return [(str(path), status.st_size, status.st_mtime_ns if path.is_file() else 0) for path, status in every]

    def before(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy, seen, taken
        if busy or event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            return
        if event == "open" and (arguments[1] is None or not set(str(arguments[1])) & set("wax+")):
            return
        if not any(isinstance(a, str | os.PathLike) and Path(a).resolve().is_relative_to(folder) for a in arguments[:2]):
            return
        busy = True
        if folder.exists() and (now := looks()) != seen:
            seen, taken = now, taken + 1
            shutil.copytree(folder, album / f"{taken:04d}")
            (album / f"{taken:04d}.txt").write_text(f"{event} {arguments}")
        busy = False

    sys.addaudithook(before)
    run(recipe)


def outcome(folder: Path) -> dict[str, Any]:
    """What must not depend on how often a run was killed: metrics, and the digests of all that it made."""
    from edgetune.artifact import file_digest

    report = json.loads((folder / "report.json").read_text("utf-8"))
    stages = json.loads((folder / "manifest.json").read_text("utf-8"))["stages"]
    bundles = {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted((folder / "bundles").rglob("*.onnx"))}
    assert bundles
    timed = ("export", "benchmark")  # they depend on what was measured
    return {
        "history": report["adapt"]["history"],
        "test": report["adapt"]["test"],
        "quality": {name: facts["quality"] for name, facts in report["export"].items()},
        "stages": {name: entry["digest"] for name, entry in stages.items() if not name.startswith(timed)},
        "weights": file_digest(folder / "merged" / "model.safetensors"),
        "bundles": bundles,
    }


def _child(function: Callable[..., None], arguments: tuple[Any, ...], log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    function(*arguments)


def fail(recipe: Any, told: Path, until: str = "export", largest: int = 0) -> None:
    """`run`, which may fail; `told` gets the exit code and the text that a user would see. `largest`: bytes that a file may have."""
    import resource

    from edgetune.cli.errors import explain, lines

    if largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    try:
        run(recipe, until=until)
    except Exception as error:
        found = explain(error)
        told.write_text(json.dumps({"code": found.code, "lines": lines(found)}))
        return
    told.write_text(json.dumps({"code": 0, "lines": []}))
