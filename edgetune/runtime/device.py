#!/usr/bin/env python3
"""Measure the bundles in this folder, in turns, and write result.json.

    python measure.py

Python 3.9 or newer, and:  pip install onnxruntime tokenizers numpy
What to measure stands in plan.json. Take result.json home:  edgetune benchmark BUNDLE... --import result.json
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Sequence  # noqa: UP035

NEEDED = ("onnxruntime", "tokenizers", "numpy")
SCHEMA = "edgetune.turns/1"


class Failed(Exception):
    """run.py of a bundle ended badly: its exit code, and what it wrote."""


def machine() -> dict[str, Any]:
    """What the numbers are measured on. `flags` are the kernel's names of the instruction sets; None: not known here.

    `load_before` is the mean number of running processes over the last minute, `busy` the share of all cores in use over the
    last 0.3 s.
    """
    return {
        "cpu": cpu(),
        "architecture": {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine()),
        "flags": flags(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": load(),
        "busy": busy(),
    }


def cpu() -> str:
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    board = text("/proc/device-tree/model").strip("\0 \n")  # "Raspberry Pi 5 Model B Rev 1.0"
    names = [line.partition(":")[2].strip() for line in text("/proc/cpuinfo").splitlines() if line.startswith(("model name", "Hardware"))]
    return next(filter(None, [board, *names, platform.processor()]), "unknown")


def flags() -> list[str] | None:
    if platform.system() == "Darwin":  # what every Apple chip has
        return ["asimd", "asimddp", "asimdhp"] if platform.machine() == "arm64" else ["avx2"]
    found = [
        line.partition(":")[2].split() for line in text("/proc/cpuinfo").splitlines() if line.lower().startswith(("flags", "features"))
    ]
    return sorted(set().union(*found)) if found else None


def memory_bytes() -> int | None:
    lines = text("/proc/meminfo").splitlines()
    total = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal")), None)
    if total is None and platform.system() == "Darwin":
        done = subprocess.run(["sysctl", "-n", "hw.memsize"], capture_output=True, text=True, check=False)
        total = int(done.stdout) if done.returncode == 0 else None
    return total


def load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has none; Android hides it
        return None


def busy() -> float | None:
    def ticks() -> tuple[int, int] | None:
        """(working, all) since the start, in ticks."""
        first = text("/proc/stat").partition("\n")[0].split()[1:9]
        counted = [int(part) for part in first]
        return (sum(counted) - counted[3] - counted[4], sum(counted)) if len(counted) == 8 else None

    before = ticks()
    time.sleep(0.3)
    after = ticks()
    if before is None or after is None or after[1] == before[1]:
        return None
    return round((after[0] - before[0]) / (after[1] - before[1]), 4)


def text(path: str) -> str:
    """What a file of the kernel says; nothing where there is none."""
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def run(bundle: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """One fresh process of run.py. A bundle that differs from its golden vectors (exit 4) is a finding, not a failure."""
    command = [sys.executable, "-B", str(bundle / "run.py"), *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=False)
    lines = done.stdout.splitlines()
    if done.returncode not in (0, 4) or not lines:
        raise Failed(done.returncode, f"run.py of {bundle.name} ended with {done.returncode}\n{done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def turns(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """Every bundle's golden check, then `rounds` turns (A B A B), each of one process for each of the plan's commands."""
    here = machine()
    bundles = [folder / name for name in plan["bundles"]]
    total, done = plan["rounds"] * len(bundles), 0
    found: list[dict[str, Any]] = []
    for bundle in bundles:
        digest = hashlib.sha256((bundle / "edgetune.json").read_bytes()).hexdigest()
        found.append({"name": bundle.name, "edgetune_json": digest, "golden": run(bundle, plan["check"]), "turns": []})
    for _ in range(plan["rounds"]):
        for bundle, entry in zip(bundles, found):  # noqa: B905  (3.9)
            entry["turns"].append([run(bundle, command) for command in plan["commands"]])
            done += 1
            print(f"turn {done} of {total}: {bundle.name}", flush=True)
    return {"schema": SCHEMA, "machine": {**here, "load_after": load()}, "bundles": found}


def main(folder: Path) -> int:
    """Exit codes: 0 done, 2 the request cannot be served here, 3 a bundle failed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: {sys.executable} has no {', '.join(missing)}: pip install {' '.join(NEEDED)}", file=sys.stderr)
        return 2
    try:
        result = turns(folder, json.loads((folder / "plan.json").read_text("utf-8")))
    except Failed as failed:
        print(failed.args[1], file=sys.stderr)
        return 2 if failed.args[0] == 2 else 3
    (folder / "result.json").write_text(json.dumps(result), "utf-8")
    print(f"written: {folder / 'result.json'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent))
