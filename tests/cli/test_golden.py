"""What the commands say, word for word. EDGETUNE_GOLDEN=write pytest tests/cli/test_golden.py writes it anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

COMMANDS = {
    "methods": ("methods",),
    "tasks": ("tasks",),
    "unknown-target": ("targets", "show", "arm65"),
    "wrong-recipe": ("adapt", "--epochs", "many", "--set", "lora.rank=-1", "--set", "data.on_bad_row=ignore"),
    "no-bundle": ("predict", "no-such-folder", "text"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_words(edgetune, golden: Callable[[str, str], None], name: str) -> None:
    answer = edgetune(*COMMANDS[name])
    lines = [f"$ edgetune {' '.join(COMMANDS[name])}", *answer.out.splitlines(), *answer.err.splitlines(), f"exit {answer.code}"]
    golden(f"{name}.txt", "".join(f"{line.rstrip()}\n" for line in lines))


def test_help(golden: Callable[[str, str], None]) -> None:
    """The words of `edgetune --help`, without the frame that typer draws around them."""
    environment = {**os.environ, "TERMINAL_WIDTH": "200", "_TYPER_FORCE_DISABLE_TERMINAL": "1", "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-m", "edgetune", "--help"], env=environment, capture_output=True, text=True, check=True)
    text = re.sub(r"[╭╮╰╯│─]|<bool>", " ", done.stdout)
    golden("help.txt", "".join(f"{' '.join(line.split())}\n" for line in text.splitlines() if line.strip()))
