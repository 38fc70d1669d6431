"""What the scripts share: the command line as a user types it, each command a process of its own; what a run has to tell; intervals; where results go."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import t as student


def edgetune(*arguments: str) -> float:
    """Run the command line; its wall time in seconds."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "edgetune", *arguments], check=True)
    return round(time.monotonic() - started, 1)


def report(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "report.json").read_text("utf-8"))
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and Student's 95 % interval; of one value there is none."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, float("-inf"), float("inf")
    half = float(student.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def record(name: str, found: Mapping[str, Any], text: str) -> None:
    """Write results/NAME.json and .md."""
    place = Path(__file__).parent / "results" / name
    place.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    place.with_suffix(".md").write_text(text, "utf-8")
