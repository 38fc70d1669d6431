"""Programs that a test needs and that pip does not install."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def needs(tool: str) -> str:
    """Where `tool` is; see `missing`."""
    return shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") or missing(tool)


def missing(what: str) -> NoReturn:
    """Skip the test, with the reason; in CI, which runs `make tools`, fail it."""
    say = pytest.fail if os.environ.get("CI") else pytest.skip
    say(f"{what} is not on this machine: make tools")
