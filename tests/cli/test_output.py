from __future__ import annotations

import io
import json
from typing import Any

import pytest

from edgetune.cli.output import Output, duration, facts, number, size, table

DATA = {"name": "ü", "value": 0.5}


def shown(out: Output) -> None:
    out.result(DATA, table([("a", 1)], "name", "value"), "plain [line]", quiet=["a"])


def test_people_see_tables_and_the_lines_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    shown(Output())
    captured = capsys.readouterr()
    assert "name" in captured.out
    assert "plain [line]" in captured.out, "square brackets are no markup"
    assert captured.err == ""


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.configure(json=True)
    out.stream("a piece that is not shown")
    out.note("on stderr")
    shown(out)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == DATA
    assert "ü" in captured.out
    assert captured.err.strip() == "on stderr"


def test_quiet_is_the_bare_answer(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.configure(quiet=True)
    out.note("n")
    out.warn("w")
    out.hint("h")
    shown(out)
    captured = capsys.readouterr()
    assert captured.out == "a\n"
    assert captured.err == ""


def test_errors_are_shown_in_every_mode(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.configure(quiet=True, json=True)
    out.error(["error: no", "  mend"])
    assert capsys.readouterr().err == "error: no\n  mend\n"


def test_hints_notes_and_warnings_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.note("a note")
    out.warn("careful")
    out.hint("edgetune x")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["a note", "warning: careful", "next:  edgetune x"]


def test_a_pipe_gets_no_colour_no_bars_and_no_wrapping(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    long = "word " * 100
    out.warn("careful")
    with out.bar("training", 10) as bar:
        bar.advance(5, "loss 1.0")
    out.result({}, long, table([("x" * 150,)], "wide"))
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "training" not in captured.err
    assert long.rstrip() in captured.out
    assert "x" * 150 in captured.out


def terminal(no_color: bool = False) -> tuple[Output, io.StringIO]:
    from rich.console import Console

    out, stream = Output(), io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, no_color=no_color, color_system="standard")
    out._consoles = {True: console, False: console}
    return out, stream


def test_a_terminal_gets_bars_with_the_time_left() -> None:
    out, stream = terminal()
    with out.bar("training", 4) as outer, out.bar("scoring", 2) as inner:
        assert out._live is not None
        inner.advance(1)
        outer.advance(1, "loss 0.5")
        out._live.refresh()
    text = stream.getvalue()
    assert "training" in text
    assert "scoring" in text
    assert "25%" in text
    assert "left" in text
    assert out._live is None, "the display is closed with the last bar"


def test_bars_are_closed_when_the_block_fails() -> None:
    out, _ = terminal()
    with pytest.raises(ValueError), out.bar("training", 4):
        raise ValueError
    assert out._live is None


@pytest.mark.parametrize(("no_color", "coloured"), [(False, True), (True, False)])
def test_no_color(no_color: bool, coloured: bool) -> None:
    out, stream = terminal(no_color)
    out.warn("careful")
    assert ("\x1b[33m" in stream.getvalue()) is coloured
    assert out.colour is coloured


def test_modes_add_up() -> None:
    out = Output()
    out.configure(json=True)
    out.configure(quiet=True)
    assert out.json
    assert out.quiet
    out.reset()
    assert not out.json


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (size(None), "-"),
        (size(0), "0 B"),
        (size(999), "999 B"),
        (size(23_300_000), "23.3 MB"),
        (size(2.5e12), "2500.0 GB"),
        (number(None), "-"),
        (number(0.92134), "0.9213"),
        (number(7), "7"),
        (number("x"), "x"),
        (duration(3.14), "3.1 s"),
        (duration(75.2), "1 min 15 s"),
        (duration(None), "-"),
    ],
)
def test_numbers_for_people(made: str, text: str) -> None:
    assert made == text


def test_facts_show_a_dash_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Output().result({}, facts({"gpu": None, "cpu": "x"}, "machine"))
    words: list[Any] = capsys.readouterr().out.split()
    assert words == ["machine", "gpu", "-", "cpu", "x"]
