"""`edgetune export`: from a run, or from a checkpoint trained elsewhere, to bundles."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgetune.cli.options import takes


@takes("data", "compress", "export", only=("task", "output", "seed", "trust_remote_code"))
def export(
    source: Annotated[
        Path, typer.Argument(metavar="RUN|CHECKPOINT", help="run directory, or a transformers or peft checkpoint", show_default=False)
    ],
    overrides: dict[str, Any],
) -> None:
    """Every candidate is measured against the adapted float model; what loses more than --max-drop is refused (exit 4).
    A checkpoint that edgetune did not train needs --task and --data.
    """
    from edgetune import pipeline, workspace
    from edgetune.cli import report
    from edgetune.cli.output import out
    from edgetune.errors import RunError

    if not source.exists():
        raise RunError(f"there is no run or checkpoint at {source}", mend="edgetune adapt --output RUN makes a run")
    place = None
    if (source / "recipe.toml").is_file():  # a run: its bundles stay in it, and are copied to --output
        place = overrides.pop("output", None)
        if not overrides.get("export.targets") and not workspace.existing(source).recipe.export.targets:
            raise RunError("no target given", mend=f"edgetune export {source} --target {report.suggested_target()}")
    run = pipeline.export(source, overrides)
    facts = report.read(run)
    bundles = report.bundles(run, facts, overrides.get("export.targets"))
    if place is not None:
        bundles = _copied(bundles, Path(place))
    out.result(
        {"run": str(run), "bundles": [str(bundle) for bundle in bundles], **report.part(facts, "export")},
        *report.exported(facts),
        *(f"bundle: {bundle}" for bundle in bundles),
        quiet=map(str, bundles),
    )
    if bundles:
        out.hint(f"edgetune benchmark {' '.join(map(str, bundles))}")
        out.hint(f'edgetune predict {bundles[0]} "your text"', "try it")


def _copied(bundles: Sequence[Path], place: Path) -> list[Path]:
    """Copies of `bundles` in the folder `place`, in place of older ones. Raises RunError when something else is there."""
    from edgetune.errors import RunError

    copies = []
    for bundle in bundles:
        copy = place / bundle.name
        if copy.exists() and not (copy / "edgetune.json").is_file():
            raise RunError(f"{copy} exists and is not a bundle", mend="choose another --output")
        try:
            if copy.exists():
                shutil.rmtree(copy)
            shutil.copytree(bundle, copy)
        except PermissionError as error:
            raise RunError(f"cannot write to {place}: {error.strerror}", mend="choose another --output") from None
        copies.append(copy)
    return copies
