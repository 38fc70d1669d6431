"""What a number was measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from edgetune import target

BUSY = 0.3  # share of the cores in use before a measurement from which it counts as disturbed


def fingerprint() -> dict[str, Any]:
    """CPU, instruction sets, cores, memory, versions, and how busy the machine is now.

    `load_before` is the mean number of running processes over the last minute (None on Windows), of which some may be edgetune's
    own; `busy` is the share of all cores in use over the last 0.3 s.
    """
    return {
        "cpu": _cpu(),
        "architecture": architecture(),
        "isa": sorted(target.isa()),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": _onnxruntime(),
        "load_before": load(),
        "busy": psutil.cpu_percent(interval=0.3) / 100,
    }


def architecture() -> str:
    """As target profiles spell it: x86_64, aarch64."""
    return target.architecture()


def load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cpu() -> str:
    if platform.system() == "Darwin":
        return subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False).stdout.strip()
    if board := target.board():
        return board
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _onnxruntime() -> str | None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
