"""How passes are timed, for programs that measure something else than a bundle (standard library only).

run.py is one file, so it holds the same functions; a test keeps the two equal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()
WINDOW = 5  # passes whose median tells whether a shape is warm
STEADY = 0.05  # of that median
MOST_WARM_UP = 50  # passes that are not counted


def passes(run: Callable[[Any], Any], inputs: Sequence[Any], runs: int, seconds: float) -> dict[str, Any]:
    """`run` over `inputs` in turn: `ms` of at most `runs` passes or `seconds`, whichever is first.

    Before that the first WINDOW inputs are repeated until their median time is within STEADY of the repetition before, for at most
    MOST_WARM_UP passes or a third of `seconds`: `warm_up` passes, and whether they ended `steady`.
    """
    warm_up, before, steady = 0, 0.0, False
    until = time.perf_counter() + seconds / 3
    while not steady and warm_up < MOST_WARM_UP and time.perf_counter() < until:
        now = sorted(milliseconds(run, item) for item in islice(cycle(inputs), WINDOW))[WINDOW // 2]
        steady = abs(now - before) <= STEADY * before
        warm_up, before = warm_up + WINDOW, now
    ms: list[float] = []
    take = cycle(inputs)
    until = time.perf_counter() + seconds
    while not ms or (len(ms) < runs and time.perf_counter() < until):
        ms.append(milliseconds(run, next(take)))
    return {"ms": ms, "warm_up": warm_up, "steady": steady}


def milliseconds(run: Callable[[Any], Any], item: Any) -> float:
    started = time.perf_counter()
    run(item)
    return (time.perf_counter() - started) * 1000


def batches(rows: Sequence[Any], size: int) -> list[list[Any]]:
    """Each row with the `size` - 1 that follow it; after the last one comes the first."""
    return [[rows[(start + i) % len(rows)] for i in range(size)] for start in range(0, len(rows) * size, size)]


def mean_length(rows: Sequence[Sequence[Sequence[int]]]) -> int:
    lengths = [len(row) for some in rows for row in some]
    return round(sum(lengths) / len(lengths))


def since_start_ms() -> float:
    """Since the start of this process, to 10 ms (Linux); elsewhere since the first line of this program."""
    here = (time.perf_counter() - STARTED) * 1000
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")) * 1000
    except (OSError, AttributeError, ValueError, IndexError):
        return here
    return max(age, here) if ticks else here  # an emulator may not know


def peak_rss_bytes() -> int | None:
    """The largest resident size of this process, in bytes (on Linux not ru_maxrss: it starts from the parent's size)."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
