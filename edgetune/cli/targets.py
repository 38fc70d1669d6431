"""`edgetune targets`: the devices that edgetune knows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgetune.cli.options import complete, complete_names, everywhere

app = typer.Typer(no_args_is_help=True, add_completion=False)
emulator = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(emulator, name="emulator")
emulator.callback(help="What proves a bundle for devices that are not here.")(everywhere(lambda: None))

Name = Annotated[str, typer.Argument(help="a shipped target, or a .toml file", autocompletion=complete_names("target"), show_default=False)]


@app.command("list")
@everywhere
def list_targets() -> None:
    """Every shipped target, and how far it has been verified."""
    from edgetune import target
    from edgetune.cli.output import out, table

    found = [target.load(name) for name in target.names()]
    data = [{"name": t.name, "title": t.title, "provider": t.runtime.provider, "verified": t.verified} for t in found]
    out.result(data, table([tuple(row.values()) for row in data], "name", "title", "provider", "verified"), quiet=target.names())
    out.note(
        "verified: 'native' ran on such hardware; 'parity emulated' and 'parity simulated' gave the same answers, no speed is known; 'not run': neither"
    )


@app.command()
@everywhere
def show(name: Name) -> None:
    """A target with everything that it inherits."""
    from edgetune import target
    from edgetune.cli.output import facts, out

    found = target.load(name).model_dump(mode="json")
    out.result(found, facts(_flat(found)), quiet=[found["name"]])


@app.command()
@everywhere
def check(file: Name) -> None:
    """Check a target file: keys, values, contradictions."""
    from edgetune.cli.output import out
    from edgetune.quant import profile

    found = profile.load(file)
    out.result({"name": found.name, "valid": True}, f"{file}: a valid target ({found.title})", quiet=[found.name])
    out.hint(f"edgetune export RUN --target {file}")


@app.command()
@everywhere
def detect() -> None:
    """The shipped target that fits this machine best."""
    from edgetune import target
    from edgetune.cli.output import out

    name = target.detect()
    out.result({"name": name, "isa": sorted(target.isa())}, name, quiet=[name])


@emulator.command()
@everywhere
def install(
    name: Annotated[
        str,
        typer.Argument(metavar="ARCH", help="arm64, x86_64 or web", autocompletion=complete("arm64", "x86_64", "web"), show_default=False),
    ],
) -> None:
    """Fetch it into the cache folder ($EDGETUNE_CACHE, else ~/.cache/edgetune), without root. What is there is not fetched again."""
    from edgetune.cli.output import out
    from edgetune.runtime import runners

    found = runners.install(name)
    out.result({"name": name, **found}, f"{name}: installed in {found['emulator']}", quiet=[found["emulator"]])
    out.hint(f"edgetune verify BUNDLE --on {'node' if name == 'web' else 'emulator'}")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.") or {prefix + key: "none"}
        else:
            flat[prefix + key] = (", ".join(map(str, value)) or "none") if isinstance(value, list) else value
    return flat
