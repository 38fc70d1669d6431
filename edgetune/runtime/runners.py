"""Where a bundle can be run: a row a runner. `--on` names one.

`host(where, **options)` is a context manager that gives a `Host`; `turns(where, bundles, plan, **options)` measures there and gives
an `edgetune.turns/1` (see `device`). An emulator has no `turns`: it says what is computed, never how fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from edgetune.errors import RequestError, did_you_mean
from edgetune.runtime.process import Finished, run
from edgetune.table import resolve

LOCAL = "local"


@dataclass(frozen=True)
class Host:
    """A place that can run `run.py ARGUMENTS` of a bundle: `run(bundle, arguments)`. `title` and `mend` are for messages."""

    title: str
    run: Callable[[Path, Sequence[str]], Finished]
    mend: str | None = None


@dataclass(frozen=True)
class Runner:
    """`options` are the keywords that `host` and `turns` take beside the place; `turns` is empty where time means nothing."""

    name: str
    title: str
    host: str
    turns: str = ""
    options: tuple[str, ...] = ()


RUNNERS: dict[str, Runner] = {
    runner.name: runner
    for runner in (
        Runner(LOCAL, "this machine", "edgetune.runtime.runners:here"),
        Runner("ssh", "another machine: ssh://[user@]host[:port]", "edgetune.runtime.ssh:host", "edgetune.runtime.ssh:turns", ("python",)),
        Runner("emulator", "the CPU of the bundle's target, under qemu", "edgetune.runtime.emulator:host", options=("limit",)),
        Runner("node", "WebAssembly in Node, as a web app runs it", "edgetune.runtime.node:host"),
    )
}

# What `edgetune targets emulator install` can install: a function that returns what it did.
INSTALLERS: dict[str, str] = {
    "arm64": "edgetune.runtime.sysroot:install_arm64",
    "x86_64": "edgetune.runtime.sysroot:install_x86_64",
    "web": "edgetune.runtime.node:install",
}


def install(name: str) -> dict[str, Any]:
    """Install what `--on` needs for `name`; nothing when it is there. Raises RequestError, StageError."""
    if name not in INSTALLERS:
        raise RequestError(f'unknown emulator "{name}"{did_you_mean(name, INSTALLERS)}', mend=f"choose one of: {', '.join(INSTALLERS)}")
    found: dict[str, Any] = resolve(INSTALLERS[name])()
    return found


@contextmanager
def opened(on: str, **options: Any) -> Iterator[Host]:
    """The host that `on` names. Raises RequestError when there is no such runner, or it cannot be reached or used."""
    runner = of(on, options)
    place = cast("Callable[..., AbstractContextManager[Host]]", resolve(runner.host))
    with place(on, **_given(options)) as host:
        yield host


def turns(on: str, bundles: Sequence[Path], plan: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Measure `bundles` as `plan` says (see `kit.plan`) with the runner that `on` names. Raises RequestError, StageError."""
    runner = of(on, options)
    if not runner.turns:
        able = [row.name for row in RUNNERS.values() if row.turns or row.name == LOCAL]
        raise RequestError(
            f"--on {on} proves that a bundle computes the same there; its times would mean nothing",
            mend=f"edgetune verify BUNDLE --on {on}, or measure on: {', '.join(able)}",
        )
    found: dict[str, Any] = resolve(runner.turns)(on, bundles, plan, **_given(options))
    return found


def of(on: str, options: Mapping[str, Any]) -> Runner:
    """The row that `on` names (`ssh://...`: the row ssh), which must take every option that is given."""
    name, _, address = on.partition("://")
    runner = RUNNERS.get(name)
    if runner is None or bool(address) != (runner.name == "ssh"):
        near = "" if runner else did_you_mean(name, RUNNERS)
        raise RequestError(f'unknown runner "{on}"{near}', details=[f"{row.name}: {row.title}" for row in RUNNERS.values()])
    if foreign := [key for key in _given(options) if key not in runner.options]:
        raise RequestError(f"--{foreign[0]} is of no use with --on {on}", mend=f"leave --{foreign[0]} out")
    return runner


@contextmanager
def here(_on: str) -> Iterator[Host]:
    yield Host("this machine", run)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
