"""Every error that a user can meet.

    EdgetuneError             exit 3   a stage failed
    ├── RequestError          exit 2   what was asked for is wrong; nothing was written
    │   ├── RecipeError                a key of the recipe, or a flag
    │   ├── DataError                  a file or a row of the user's data
    │   ├── ModelError                 a model directory, hub id or .gguf file
    │   ├── TargetError                a target profile
    │   ├── RunError                   a run directory or an output path
    │   └── MissingExtra               a package that is not installed
    ├── StageError            exit 3   a stage could not do its work
    ├── GateError             exit 4   a promise was broken (parity, accuracy, budget, golden vectors)
    └── Interrupted           exit 130 stopped by the user; the run resumes

An error says what happened, where, and how to mend it. `edgetune.cli.errors` is the only place that turns one into text.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class EdgetuneError(Exception):
    """What happened (`str(error)`), the `details` that show it, and the `mend`: what to do next."""

    exit_code = 3

    def __init__(self, what: str, *, details: Sequence[str] = (), mend: str | None = None) -> None:
        super().__init__(what)
        self.details = tuple(details)
        self.mend = mend


class RequestError(EdgetuneError):
    exit_code = 2


class RecipeError(RequestError):
    pass


class DataError(RequestError):
    pass


class ModelError(RequestError):
    pass


class TargetError(RequestError):
    pass


class RunError(RequestError):
    pass


class MissingExtra(RequestError):
    pass


class StageError(EdgetuneError):
    exit_code = 3


class GateError(EdgetuneError):
    exit_code = 4


class Interrupted(EdgetuneError):
    exit_code = 130


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """' (did you mean "x"?)' for the choice nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f' (did you mean "{near[0]}"?)' if near else ""
