"""What is decided before a library loads: no telemetry, no network unasked, no chatter, SIGTERM as an interrupt."""

from __future__ import annotations

import glob
import logging
import os
import signal
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.recipe import Recipe

# Read by the libraries when they are imported, and inherited by the worker processes. What the user has set stays.
ALWAYS = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",  # until the user names something remote: see `allow_network`
    "TOKENIZERS_PARALLELISM": "false",  # tokenizers warn about every fork otherwise
}
SILENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "BITSANDBYTES_NOWELCOME": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}
# Waiting threads sleep instead of spinning: beside one busy neighbour training is 3-4 times faster so, alone it is a fifth slower.
BESIDE_OTHERS = {"OMP_WAIT_POLICY": "passive"}
_ours: set[str] = set()


def prepare(*, verbose: bool) -> None:
    """Set the environment of this process; with `verbose` the libraries may talk (on stderr)."""
    for name, value in {**ALWAYS, **({} if verbose else SILENT), **(BESIDE_OTHERS if _busy() else {})}.items():
        if name not in os.environ:
            os.environ[name] = value
            _ours.add(name)
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    else:
        warnings.simplefilter("ignore")
        logging.basicConfig(level=logging.CRITICAL, handlers=[logging.NullHandler()])
    signal.signal(signal.SIGTERM, _interrupt)


def _busy() -> bool:
    """True when something else than this process wants a processor right now (Linux; elsewhere nobody knows so cheaply)."""
    try:
        running = Path("/proc/loadavg").read_text("utf-8").split()[3].partition("/")[0]
    except OSError:
        return False
    return int(running) > 1


def allow_network(recipe: Recipe) -> None:
    """Let the hub be asked when the recipe names a model or data that is not on this machine.

    Must run before huggingface_hub is imported, which reads HF_HUB_OFFLINE once.
    """
    if "HF_HUB_OFFLINE" in _ours and is_remote(recipe):
        os.environ.pop("HF_HUB_OFFLINE", None)
        _ours.discard("HF_HUB_OFFLINE")


def is_remote(recipe: Recipe) -> bool:
    """True when the recipe's model or data is a hub id that nothing on this machine stands in for."""
    from edgetune import source

    data = recipe.data.path
    here = not data or data.startswith((".", "/", "~")) or Path(data).exists() or any(Path().glob(f"{glob.escape(data)}.*"))
    return source.is_remote(recipe.model) or not here


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
