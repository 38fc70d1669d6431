from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _no_width_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a wish for colour: output looks as it does in a pipe."""
    for name in ("COLUMNS", "TERMINAL_WIDTH", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def edgetune(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Answer]]:
    """edgetune("targets", "list") runs that command line in this process; the environment and the signals are put back."""
    from edgetune.cli.app import call

    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Answer:
        capfd.readouterr()
        with mock.patch.dict(os.environ), warnings.catch_warnings():
            code = call([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Answer(code, captured.out, captured.err)

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def data_folder(tmp_path: Any) -> Any:
    """A folder with a small classification data set: 3 labels, train and test."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [(f"{verb} the {thing}", label) for verb, label in (("open", "open"), ("close", "close"), ("paint", "paint")) for thing in WORDS]
    (folder / "train.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (folder / "test.csv").write_text("text,label\n" + "".join(f"please {text},{label}\n" for text, label in rows[::3]))
    return folder


WORDS = ("door", "window", "gate", "box", "lid", "drawer", "shutter", "curtain", "valve", "hatch", "trunk", "hood")
