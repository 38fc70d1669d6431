from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest

from edgetune import errors as tree
from edgetune.cli import errors


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class BundleError(Exception):
    """Named as run.py's."""


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a/model.safetensors")


@pytest.mark.parametrize(
    ("error", "code", "says", "mends"),
    [
        (tree.RecipeError("bad key", mend="use another"), 2, "bad key", "use another"),
        (tree.DataError("bad row"), 2, "bad row", None),
        (tree.StageError("lost"), 3, "lost", None),
        (tree.GateError("too inaccurate", mend="--max-drop 0.02"), 4, "too inaccurate", "--max-drop 0.02"),
        (tree.Interrupted("stopped"), 130, "stopped", "run the same command again to resume"),
        (KeyboardInterrupt(), 130, "interrupted", "run the same command again to resume"),
        (FULL, 3, "disk full: runs/a/model.safetensors", "free some space"),
        (caused(RuntimeError("cannot write"), FULL), 3, "disk full: runs/a/model.safetensors", "free some space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 3, "disk full", "free some space"),
        (MemoryError(), 3, "out of memory", "--batch-size"),
        (OutOfMemoryError("CUDA out of memory"), 3, "out of memory", "--batch-size"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 3, "permission denied: /x", "--debug"),
        (BundleError("onnxruntime is too old"), 2, "onnxruntime is too old", "edgetune verify"),
        (ZeroDivisionError("division by zero"), 3, "internal error: ZeroDivisionError: division by zero", "--debug"),
        (AssertionError(), 3, "internal error: AssertionError", "--debug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_the_table(error: BaseException, code: int, says: str, mends: str | None) -> None:
    failure = errors.explain(error)
    assert failure.code == code
    assert failure.what == says
    assert mends is None or mends in (failure.mend or "")


def test_every_error_of_ours_keeps_its_exit_code() -> None:
    kinds = [tree.EdgetuneError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        assert errors.explain(kind("x")).code == kind.exit_code
    assert sum(kind.__module__ == tree.__name__ for kind in kinds) == 11, "and those of rooms that are loaded"


def test_at_most_twenty_lines_and_none_endless() -> None:
    error = tree.DataError("x" * 100_000, details=[f"row {i}" for i in range(500)], mend="one\ntwo")
    shown = errors.lines(errors.explain(error))
    assert len(shown) == 20
    assert max(map(len, shown)) <= errors.LONGEST_LINE
    assert shown[0].startswith("error: xxx")
    assert shown[-3:] == ["  ... and 484 more", "  one", "  two"]


def test_twenty_lines_are_not_shortened() -> None:
    shown = errors.lines(errors.explain(tree.DataError("x", details=[f"row {i}" for i in range(18)], mend="y")))
    assert len(shown) == 20
    assert not any("more" in line for line in shown)


def test_a_traceback_only_with_debug(edgetune, monkeypatch) -> None:
    from edgetune import target

    def broken() -> str:
        raise ZeroDivisionError("oh no")

    monkeypatch.setattr(target, "detect", broken)
    answer = edgetune("targets", "detect")
    assert answer.code == 3
    assert answer.out == ""
    assert answer.err.splitlines()[0] == "error: internal error: ZeroDivisionError: oh no"
    assert "Traceback" not in answer.err
    with_debug = edgetune("targets", "detect", "--debug")
    assert with_debug.code == 3
    assert "Traceback" in with_debug.err
    assert "in broken" in with_debug.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--foo",), "no such option"),
        (("expot",), "no such command 'expot'. Did you mean 'export'?"),
        (("targets", "lst"), "no such command 'lst'. Did you mean 'list'?"),
        (("merge",), "missing argument"),
        (("adapt", "--epochs"), "requires an argument"),
    ],
)
def test_a_wrong_command_line_is_exit_2(edgetune, arguments: tuple[str, ...], says: str) -> None:
    answer = edgetune(*arguments)
    assert answer.code == 2
    assert says.lower() in answer.err.lower()
    assert answer.err.startswith("error: ")
    assert "--help" in answer.err.splitlines()[-1]


@pytest.mark.parametrize("words", [("targets", "list", "--json"), ("export", "--help")])
def test_a_reader_that_has_seen_enough_is_no_error(words: tuple[str, ...]) -> None:
    program = "import sys; from edgetune.cli.app import main; main()"
    with subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait(30) == 0
    assert said == ""


WAITING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits that it is ignored
from edgetune import target
from edgetune.cli import app

def wait():
    sys.stderr.write("waiting\\n")
    sys.stderr.flush()
    time.sleep(30)

target.detect = wait
sys.exit(app.call(["targets", "detect"]))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_and_sigterm_are_exit_130(name: str) -> None:
    import signal

    with subprocess.Popen([sys.executable, "-c", WAITING], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting\n"
        time.sleep(0.1)
        process.send_signal(getattr(signal, name))
        said = process.stderr.read()
        assert process.wait(20) == 130
    assert said.splitlines() == ["error: interrupted", "  run the same command again to resume"]


@pytest.mark.parametrize("code", [0, 2])
def test_what_is_to_be_done_at_the_end_is_done(code: int) -> None:
    program = (
        "import atexit, sys\nfrom edgetune.cli import leaving\n"
        "def call():\n    atexit.register(lambda: sys.stdout.write('done'))\n    return int(sys.argv[1])\nleaving.quickly(call)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "done", "")
