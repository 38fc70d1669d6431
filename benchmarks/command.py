"""The command line as a user types it, each command a process of its own, and what a run has to tell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def edgetune(*arguments: str) -> float:
    """Run the command line; its wall time in seconds."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "edgetune", *arguments], check=True)
    return round(time.monotonic() - started, 1)


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text("utf-8"))
    return found
