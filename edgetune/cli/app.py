"""`edgetune`: the commands by name. A command's module is imported when it runs, so that `--help` is quick."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

# name -> (where it is, what it does). A name with a typer app behind it has commands of its own.
COMMANDS = {
    "init": ("edgetune.cli.init:init", "Write a commented recipe.toml."),
    "data": ("edgetune.cli.data:app", "Look at a data set: what is in it, what is wrong."),
    "adapt": ("edgetune.cli.train:adapt", "Adapt a pre-trained model to labelled text."),
    "merge": ("edgetune.cli.train:merge", "Fold a run's adapter into the model, and prove that nothing changed."),
    "export": ("edgetune.cli.export:export", "Make the smallest good ONNX bundle for a device."),
    "benchmark": ("edgetune.cli.bundles:benchmark", "Measure latency, memory, size and quality of bundles, in turns."),
    "run": ("edgetune.cli.train:run", "Do all that a recipe asks for, from data to benchmark; resumes."),
    "predict": ("edgetune.cli.bundles:predict", "Try a bundle on a text, or on the lines of stdin."),
    "verify": ("edgetune.cli.bundles:verify", "Prove a bundle on this machine: digests, opset, golden vectors."),
    "targets": ("edgetune.cli.targets:app", "The devices that edgetune knows: list, show, check, detect, emulator."),
    "methods": ("edgetune.cli.tables:methods", "Ways of changing weights, and when to use which."),
    "tasks": ("edgetune.cli.tables:tasks", "What can be learned, and the data that it takes."),
    "doctor": ("edgetune.cli.doctor:doctor", "What this machine can do, what is missing, how to get it."),
}


class Late(TyperCommand):
    """A command known by its name and summary; the rest is loaded when it is called."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return load(str(self.name)).make_context(info_name, args, parent, **extra)


class Commands(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return self.commands.get(cmd_name)


def load(name: str) -> Any:
    """The command `name` of COMMANDS, with its flags."""
    from edgetune.cli.options import everywhere
    from edgetune.table import resolve

    where, summary = COMMANDS[name]
    found = resolve(where)
    if isinstance(found, typer.Typer):
        found.callback(help=summary)(everywhere(lambda: None))
        return get_command(found)
    single = typer.Typer(add_completion=False)
    single.command(name, help="\n\n".join(filter(None, (summary, found.__doc__))))(everywhere(found))
    command = get_command(single)
    command.name = name
    return command


def _version(asked: bool) -> None:
    if asked:
        from edgetune import __version__
        from edgetune.cli.output import out

        out.result({"edgetune": __version__}, f"edgetune {__version__}", quiet=[__version__])
        raise typer.Exit


def _root(
    json: Annotated[bool, typer.Option("--json", metavar="", help="one JSON document on stdout", show_default=False)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="only the bare answer", show_default=False)] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", metavar="", help="let the libraries talk", show_default=False)] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="show tracebacks", show_default=False)] = False,
    version: Annotated[
        bool, typer.Option("--version", metavar="", help="show the version and leave", callback=_version, show_default=False)
    ] = False,
) -> None:
    """Labelled text and a pre-trained model in; a small, fast, verified ONNX bundle for a named device out."""
    from edgetune.cli.output import out

    out.configure(json=json, quiet=quiet, verbose=verbose, debug=debug)


def root() -> Any:
    """The whole command line, as typer's command object."""
    app = typer.Typer(cls=Commands, no_args_is_help=True, epilog="Start with:  edgetune init, edgetune doctor")
    app.callback()(_root)
    group: Any = get_command(app)
    for name, (_, summary) in COMMANDS.items():
        group.add_command(Late(name, help=summary), name)
    return group


def call(arguments: Sequence[str]) -> int:
    """Run one command line (without the program's name) and return the exit code. Never raises."""
    from edgetune import progress
    from edgetune.cli import environment, errors
    from edgetune.cli.output import out

    words = list(arguments)
    before = words[: words.index("--")] if "--" in words else words
    out.reset()
    out.configure(json="--json" in before, debug="--debug" in before)  # what goes wrong while parsing is shown so, too
    environment.prepare(verbose=bool({"-v", "--verbose", "--debug"} & set(before)))
    progress.use(out)
    try:
        code = root()(args=words, prog_name="edgetune", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001  the one place where exceptions become text
        return errors.report(error)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run this process's command line."""
    from edgetune.cli import leaving

    leaving.quickly(lambda: call(sys.argv[1:]))
