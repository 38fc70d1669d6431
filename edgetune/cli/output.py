"""The only place that prints.

Results go to stdout, in one of three modes: for people (tables), `--json` (exactly one document), `--quiet` (the bare answer: a
path, a label). Progress, notes, warnings and hints go to stderr; there are no bars when it is not a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.progress import Progress, TaskID
    from rich.table import Table

PIPED_WIDTH = 200  # columns of a table that no terminal shows


class Output:
    """One for the process: `out`. It is the `edgetune.progress.Reporter` of the command line."""

    def __init__(self) -> None:
        self.json = self.quiet = self.verbose = self.debug = False
        self._consoles: dict[bool, Console] = {}
        self._live: Progress | None = None

    def configure(self, *, json: bool = False, quiet: bool = False, verbose: bool = False, debug: bool = False) -> None:
        """Switch modes on; a flag given before the command and one given after it add up."""
        self.json |= json
        self.quiet |= quiet
        self.verbose |= verbose
        self.debug |= debug

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]

    # Results, on stdout.

    def result(self, data: Any, *shown: RenderableType, quiet: Iterable[str] = ()) -> None:
        """The answer of a command: `data` with --json, the lines of `quiet` with --quiet, else what is `shown`."""
        if self.json:
            self._write(json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n")
        elif self.quiet:
            self._write("".join(f"{line}\n" for line in quiet))
        else:
            for item in shown:
                self._console().print(item, soft_wrap=isinstance(item, str), markup=False, highlight=False)

    @property
    def colour(self) -> bool:
        """Whether results are shown in colour."""
        return not self.json and self._console().color_system is not None and not self._console().no_color

    def stream(self, piece: str) -> None:
        """Part of an answer, at once (generated text). Not with --json, which prints it whole."""
        if not self.json:
            self._write(piece)

    def hang_up(self) -> None:
        """Nobody reads stdout any more: let what is still to be flushed go nowhere."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    # The rest, on stderr.

    def note(self, text: str) -> None:
        if not self.quiet:
            self._say(text, "dim")

    def warn(self, text: str) -> None:
        if not self.quiet:
            self._say(f"warning: {text}", "yellow")

    def hint(self, command: str, why: str = "next") -> None:
        """The next command to run."""
        if not self.quiet:
            self._say(f"{why}:  {command}", "bold")

    def error(self, lines: Sequence[str]) -> None:
        """What went wrong; shown in every mode."""
        self._stop()
        for number, line in enumerate(lines):
            self._say(line, "bold red" if number == 0 else "")

    def _say(self, text: str, style: str) -> None:
        self._console(error=True).print(text, style=style, soft_wrap=True, markup=False, highlight=False)

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[_RichBar]:
        """A bar with ETA while the block runs; bars that are open together share one display. Nothing where nobody looks."""
        if self.quiet or not self._console(error=True).is_terminal:
            yield _RichBar(None, None)
            return
        if self._live is None:
            self._live = _progress(self._console(error=True))
            self._live.start()
        live = self._live
        task = live.add_task(label, total=total, text="")
        try:
            yield _RichBar(live, task)
        finally:
            live.remove_task(task)
            if not live.tasks:
                self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _console(self, error: bool = False) -> Console:
        if error not in self._consoles:
            from rich.console import Console

            console = Console(stderr=error, highlight=False)
            if not console.is_terminal and "COLUMNS" not in os.environ:
                console = Console(stderr=error, highlight=False, width=PIPED_WIDTH)
            self._consoles[error] = console
        return self._consoles[error]


class _RichBar:
    def __init__(self, live: Progress | None, task: TaskID | None) -> None:
        self._live, self._task = live, task

    def advance(self, steps: float = 1, text: str = "") -> None:
        if self._live is not None and self._task is not None:
            self._live.advance(self._task, steps)
            if text:
                self._live.update(self._task, text=text)


def _progress(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=console,
        transient=True,
    )


def table(rows: Iterable[Sequence[Any]], *columns: str, title: str = "", right: Iterable[str] = ()) -> Table:
    """A table of `rows` under the names `columns`; those named in `right` hold numbers. None is shown as a dash."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    numbers = set(right)
    made = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*[cell if isinstance(cell, Text) else Text("-" if cell is None else str(cell)) for cell in row])
    return made


def facts(pairs: Mapping[str, Any], title: str = "") -> Group:
    """Names and values, one pair a line."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        made.add_row(Text(name, style="dim"), Text("-" if value is None else str(value)))
    return Group(*([Text(title, style="bold")] if title else []), made)


def size(count: float | None) -> str:
    """12_345_678 -> '12.3 MB' (decimal units)."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return ""


def number(value: Any, digits: int = 4) -> str:
    """Fractions and other floats to `digits`; everything else as it is."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def duration(seconds: float | None) -> str:
    """75.2 -> '1 min 15 s'."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


out = Output()
