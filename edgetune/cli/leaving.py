"""Leave a process without taking the interpreter apart, for which torch takes a second and more."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def quickly(call: Callable[[], int]) -> NoReturn:
    """Exit with what `call` returns, after everything that is registered from now on to be done at the end."""
    code: list[int] = []
    atexit.register(_end, code)  # registered first, called last
    code.append(call())
    sys.exit(code[0])


def _end(code: list[int]) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads, or closed
            stream.flush()
    os._exit(code[0] if code else 1)
