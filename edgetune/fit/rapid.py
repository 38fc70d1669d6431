"""Quick times of many graphs, to rank them: one thread each, in turns, in this process.

Sessions of one thread have no pool that spins, so they do not disturb each other. What a user reads is measured by `measure`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import progress
from edgetune.tasks import INPUTS

ROUNDS = 5
PASSES = 8  # of each graph in a round


def times(graphs: Sequence[Path], lengths: Sequence[int]) -> list[float]:
    """Median milliseconds of a pass over one row, for each of the encoder `graphs`; `lengths` are the token counts of the rows."""
    from edgetune.graph import session

    rows = [int(np.quantile(lengths, share)) for share in np.linspace(0.05, 0.95, PASSES)]
    open_sessions = [session.start(path, threads=1) for path in graphs]
    taken: list[list[float]] = [[] for _ in graphs]
    with progress.bar("timing candidates", ROUNDS * len(graphs)) as bar:
        for _ in range(ROUNDS):
            for run, found in zip(open_sessions, taken, strict=True):
                _pass(run, rows[0])
                found += [_pass(run, length) for length in rows]
                bar.advance(1)
    return [float(np.median(found)) for found in taken]


def _pass(run: Any, length: int) -> float:
    from edgetune.graph import session

    ids = np.ones((1, length), dtype=np.int64)
    (given,) = session.fitted({**dict.fromkeys(INPUTS, np.zeros_like(ids)), "input_ids": ids, "attention_mask": np.ones_like(ids)}, run)
    started = time.perf_counter()
    run.run(None, given)
    return (time.perf_counter() - started) * 1000
