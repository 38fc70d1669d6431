"""The only table from exceptions to text and exit codes.

0 done · 2 the request is wrong · 3 a stage failed · 4 a gate refused · 130 interrupted
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgetune.errors import EdgetuneError, Interrupted

MOST_LINES = 20
LONGEST_LINE = 300
FULL = (errno.ENOSPC, errno.EDQUOT)
RESUME = "run the same command again to resume"


@dataclass(frozen=True)
class Failure:
    """What the user sees: `error: what`, indented details, and how to mend it."""

    code: int
    what: str
    details: tuple[str, ...] = ()
    mend: str | None = None


def _ours(error: EdgetuneError) -> Failure:
    return Failure(error.exit_code, str(error), error.details, error.mend or (RESUME if isinstance(error, Interrupted) else None))


def _interrupted(_error: BaseException) -> Failure:
    return Failure(130, "interrupted", mend=RESUME)


def _disk_full(error: BaseException) -> Failure:
    named = next((str(e.filename) for e in _chain(error) if isinstance(e, OSError) and e.filename), None)
    where = f": {named}" if named else ""
    return Failure(3, f"disk full{where}", mend=f"free some space (edgetune doctor shows how much there is), then {RESUME}")


def _memory(error: BaseException) -> Failure:
    return Failure(
        3,
        "out of memory",
        details=tuple(str(error).splitlines()[:1]),
        mend="a smaller --batch-size, or --set adapt.accumulation=4, or a shorter --max-length",
    )


def _bundle(error: BaseException) -> Failure:
    return Failure(2, str(error), mend="edgetune verify BUNDLE checks a bundle; edgetune doctor shows what this machine can run")


def _system(error: OSError) -> Failure:
    where = f": {error.filename}" if error.filename else ""
    return Failure(3, f"{(error.strerror or str(error)).lower()}{where}", mend="--debug shows where this was")


def _usage(error: BaseException) -> Failure:
    message = getattr(error, "format_message", error.__str__)()
    context = getattr(error, "ctx", None)
    return Failure(2, message[:1].lower() + message[1:].rstrip("."), mend=f"{context.command_path if context else 'edgetune'} --help")


def _internal(error: BaseException) -> Failure:
    text = (str(error).splitlines() or [""])[0]
    return Failure(
        3,
        f"internal error: {type(error).__name__}" + (f": {text}" if text else ""),
        mend="run it again with --debug to see the traceback; please report it",
    )


def _is_full(error: BaseException) -> bool:
    return any(
        (isinstance(e, OSError) and e.errno in FULL) or "No space left on device" in str(e) or "os error 28" in str(e)
        for e in _chain(error)
    )


# The first row that fits decides. (does it fit, what the user sees)
TABLE: tuple[tuple[Callable[[BaseException], bool], Callable[..., Failure]], ...] = (
    (lambda e: isinstance(e, EdgetuneError), _ours),
    (lambda e: isinstance(e, KeyboardInterrupt) or type(e).__name__ == "Abort", _interrupted),
    (_is_full, _disk_full),
    (lambda e: isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError", _memory),
    (lambda e: type(e).__name__ == "BundleError", _bundle),  # of run.py, which knows nothing of edgetune
    (lambda e: isinstance(e, OSError), _system),
    (lambda e: hasattr(e, "format_message"), _usage),
    (lambda e: True, _internal),
)


def explain(error: BaseException) -> Failure:
    """The row of TABLE that fits `error`."""
    return next(show(error) for fits, show in TABLE if fits(error))


def lines(failure: Failure) -> list[str]:
    """At most 20 lines, none of them endless."""
    mend = _indented(failure.mend) if failure.mend else []
    what, *more = failure.what.splitlines() or [""]
    details = [line for text in (*more, *failure.details) for line in _indented(text)]
    room = MOST_LINES - 1 - len(mend)
    if len(details) > room:
        details = [*details[: room - 1], f"  ... and {len(details) - room + 1} more"]
    return [_cut(line) for line in (f"error: {what}", *details, *mend)]


def report(error: BaseException) -> int:
    """Show `error` and return the exit code of the process."""
    from edgetune.cli.output import out

    if any(isinstance(e, BrokenPipeError) for e in _chain(error)):  # whoever read our output has seen enough; click makes it a SystemExit
        out.hang_up()
        return 0
    failure = explain(error)
    if out.debug:
        out.error("".join(traceback.format_exception(error)).rstrip().splitlines())
    out.error(lines(failure))
    return failure.code


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 4]} ..."


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
