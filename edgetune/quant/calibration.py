"""What activations range over, measured on the user's own rows, one row at a time: memory does not grow with their number.

onnxruntime's calibrators (MinMax, Entropy, Percentile; see its quantization guide, "Static Quantization") keep every intermediate tensor
until `collect_data` returns, and the histogram ones need all rows to be of one length. With a stride of one row neither matters.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader

from edgetune.errors import StageError
from edgetune.tasks import padded

ROWS = 256  # at most


class Rows(CalibrationDataReader):
    """One row after the other; `set_range` says how many `get_next` may give before it pauses, as `CalibStridedMinMax` asks."""

    def __init__(self, rows: Callable[[], Iterator[Mapping[str, np.ndarray]]] | None) -> None:
        """Raises StageError without rows."""
        self.length = sum(1 for _ in itertools.islice(rows(), ROWS)) if rows else 0
        if rows is None or not self.length:
            raise StageError(
                "static quantisation measures the ranges of activations on rows of your data, and there are none",
                mend="give --data, or choose a dynamic scheme",
            )
        self.rows = rows()
        self.left = self.length

    def __len__(self) -> int:
        return self.length

    def set_range(self, start_index: int, end_index: int) -> None:
        self.left = end_index - start_index

    def get_next(self) -> dict[str, np.ndarray] | None:
        self.left -= 1
        return dict(next(self.rows)) if self.left >= 0 else None


def feeds(examples: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, np.ndarray]]:
    """The model's inputs for each example, [1, s] int64: as an app runs the model, so no padding."""
    yield from (padded([example], 0) for example in examples)


WARNING, ERROR = 2, 3  # of onnxruntime


@contextmanager
def quiet() -> Iterator[None]:
    """onnxruntime's quantisers print, and warn on the root logger; so do the sessions that they open, on a logger of their own."""
    import onnxruntime

    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    onnxruntime.set_default_logger_severity(ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(before)
        onnxruntime.set_default_logger_severity(WARNING)
