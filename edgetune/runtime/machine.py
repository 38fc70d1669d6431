"""What a number was measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import psutil

from edgetune import target
from edgetune.runtime import device

BUSY = 0.3  # share of the cores in use before a measurement from which it counts as disturbed


def fingerprint() -> dict[str, Any]:
    """CPU, instruction sets, cores, memory, versions, and how busy the machine is now.

    `load_before` is the mean number of running processes over the last minute (None on Windows), of which some may be edgetune's
    own; `busy` is the share of all cores in use over the last 0.3 s.
    """
    return {
        "cpu": device.cpu(),
        "architecture": architecture(),
        "isa": sorted(target.isa()),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "onnxruntime": _onnxruntime(),
        "load_before": load(),
        "busy": busy(),
    }


def elsewhere(found: Mapping[str, Any], onnxruntime: str | None) -> dict[str, Any]:
    """The same of another machine, from what `device.machine` found there; what it could not know is None."""
    known = target.spelled(found["flags"]) if found["flags"] is not None else set()
    return {**{key: value for key, value in found.items() if key != "flags"}, "isa": sorted(known), "onnxruntime": onnxruntime}


def architecture() -> str:
    """As target profiles spell it: x86_64, aarch64."""
    return target.architecture()


def busy() -> float:
    """Share of all cores in use over the next 0.3 s."""
    return psutil.cpu_percent(interval=0.3) / 100


def load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _onnxruntime() -> str | None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
