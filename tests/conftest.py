"""Before anything is imported: no hub, no telemetry. Then what every test may use."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # a file that is missing would cost 30 s of retries
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_WAIT_POLICY"] = "passive"

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings

settings.register_profile("edgetune", deadline=None)  # no test is decided by timing
settings.load_profile("edgetune")

CHECKOUT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the repository."""
    return CHECKOUT


@pytest.fixture(autouse=True)
def _own_reporter() -> Iterator[None]:
    """No test leaves its reporter of progress to the next one."""
    from edgetune import progress

    token = progress._reporter.set(progress.LogReporter())
    yield
    progress._reporter.reset(token)


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """golden(name, text): `text` is what tests/golden/name holds; EDGETUNE_GOLDEN=write writes it."""

    def same(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("EDGETUNE_GOLDEN") == "write":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        assert text == path.read_text("utf-8"), f"{path} differs; EDGETUNE_GOLDEN=write pytest ... writes it anew"

    return same


@pytest.fixture
def clean_environment() -> Iterator[None]:
    """os.environ as it was, afterwards."""
    with mock.patch.dict(os.environ):
        yield
