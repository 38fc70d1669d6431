"""How stages tell what they are doing, without printing.

A stage calls `note` (a fact that the user should know), `warn` (a fact that the user should act on) or `bar`.
The command line installs a `Reporter` that shows them; `collecting` keeps them for the report.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

log = logging.getLogger("edgetune")


class Bar(Protocol):
    def advance(self, steps: float = 1, text: str = "") -> None: ...


class Reporter(Protocol):
    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]: ...


class _LogBar:
    def advance(self, steps: float = 1, text: str = "") -> None:
        pass


class LogReporter:
    """Sends everything to the `edgetune` logger: what a program that calls edgetune as a library gets."""

    def note(self, text: str) -> None:
        log.info(text)

    def warn(self, text: str) -> None:
        log.warning(text)

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        log.info("%s (%g)", label, total)
        yield _LogBar()


class _Silent(LogReporter):
    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


_reporter: ContextVar[Reporter] = ContextVar("reporter", default=LogReporter())
_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def use(reporter: Reporter) -> None:
    """Show progress with `reporter` from here on."""
    _reporter.set(reporter)


def note(text: str) -> None:
    _keep(text)
    _reporter.get().note(text)


def warn(text: str) -> None:
    _keep(text)
    _reporter.get().warn(text)


@contextmanager
def bar(label: str, total: float) -> Iterator[Bar]:
    """Show a progress bar of `total` steps while the block runs."""
    with _reporter.get().bar(label, total) as shown:
        yield shown


@contextmanager
def collecting() -> Iterator[list[str]]:
    """The notes and warnings given inside the block, for the report."""
    notes: list[str] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


@contextmanager
def silent() -> Iterator[None]:
    """Nothing that the block says is shown or kept: it will be said again."""
    reporter, notes = _reporter.set(_Silent()), _notes.set(None)
    try:
        yield
    finally:
        _reporter.reset(reporter)
        _notes.reset(notes)


def _keep(text: str) -> None:
    kept = _notes.get()
    if kept is not None:
        kept.append(text)
