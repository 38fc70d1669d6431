"""`edgetune adapt`, `merge` and `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgetune.cli.options import PANELS, TRAINING, RecipeFile, load_recipe, takes

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="run directory", show_default=False)]


@takes(*TRAINING)
def adapt(overrides: dict[str, Any], recipe: RecipeFile = None) -> None:
    """A run directory is made (or resumed); no ONNX yet: `edgetune export` is the next step."""
    from edgetune import pipeline
    from edgetune.cli import report
    from edgetune.cli.output import out

    run = pipeline.run(load_recipe(recipe, overrides), "adapt")
    facts = report.read(run)
    written = {name: found for name in ("start", "auto", "other_tests", "generated") if (found := report.part(facts, name))}
    shown = (*report.trained(run, facts), f"run: {run}")
    out.result({"run": str(run), **report.part(facts, "adapt"), **written}, *shown, quiet=[str(run)])
    out.hint(f"edgetune export {run} --target {report.suggested_target()}")


def merge(run: RunFolder) -> None:
    """The result is a plain Hugging Face directory, RUN/merged."""
    from edgetune import pipeline
    from edgetune.cli import report
    from edgetune.cli.output import facts, out

    done = pipeline.merge(run)
    merged = report.part(report.read(done), "merge")
    out.result(
        {"run": str(done), **merged}, facts(report.scalars(merged), "merged"), f"model: {done / 'merged'}", quiet=[str(done / "merged")]
    )
    out.hint(f"edgetune export {done} --target {report.suggested_target()}")


@takes(*PANELS)
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="recipe.toml; flags and --set go over it", show_default=False)],
    overrides: dict[str, Any],
) -> None:
    """What is finished is not done again; what was killed goes on from its last checkpoint."""
    from edgetune import pipeline
    from edgetune.cli import report
    from edgetune.cli.output import out

    done = pipeline.run(load_recipe(recipe, overrides), "benchmark")
    facts = report.read(done)
    bundles = report.bundles(done, facts)
    out.result(
        {"run": str(done), **facts},
        *report.trained(done, facts),
        *report.exported(facts),
        *report.benchmarked(report.part(facts, "benchmark")),
        f"report: {done / 'report.html'}",
        *(f"bundle: {bundle}" for bundle in bundles),
        quiet=map(str, bundles),
    )
    if bundles:
        out.hint(f'edgetune predict {bundles[0]} "your text"', "try it")
