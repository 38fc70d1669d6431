"""A tiny classifier's float graph, and rows of the toy problem."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgetune.quant.calibration import feeds


@pytest.fixture(scope="session")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return tiny.graph(tiny.classifier(folder), folder / "model.onnx")


def examples(count: int, seed: int = 0) -> list[dict[str, list[int]]]:
    """Rows of 3 to 19 tokens."""
    chance = np.random.default_rng(seed)
    return [{"input_ids": chance.integers(5, 100, int(chance.integers(3, 20))).tolist()} for _ in range(count)]


def rows(count: int) -> partial[Iterator[dict[str, np.ndarray]]]:
    return partial(feeds, examples(count))
