"""`edgetune init`: a recipe to start from, with every key explained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgetune.cli.options import takes

# What a first recipe of each family of models looks like: small models that run on any machine.
STARTS: dict[str, dict[str, Any]] = {
    "encoder": {"model": "sentence-transformers/all-MiniLM-L6-v2", "method": "full"},
    "seq2seq": {"model": "google-t5/t5-small", "method": "full"},
    "decoder": {"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "method": "lora"},
}
SAMPLE_DATA = "examples/smart_home"
DEFAULT_TASK = "text-classification"


@takes(only=("model", "data.path", "task", "method", "output", "export.targets"))
def init(
    overrides: dict[str, Any],
    file: Annotated[Path, typer.Argument(help="where to write it")] = Path("recipe.toml"),
) -> None:
    from edgetune import recipe, target, tasks, workspace
    from edgetune.cli.output import out
    from edgetune.errors import RunError, TargetError

    if file.exists():
        raise RunError(f"{file} is there already; init overwrites nothing", mend=f"edgetune init another-name.toml, or delete {file}")
    task = tasks.get(overrides.get("task", DEFAULT_TASK))
    try:
        here = target.detect()
    except TargetError:  # no shipped profile for this machine: the user names one
        here = ""
    start = {"task": task.name, "data.path": SAMPLE_DATA, "export.targets": here, **STARTS[task.family], **overrides}
    name = Path(start["data.path"]).stem or "run"
    made = recipe.load(None, {"output": f"runs/{name}", **start})
    try:
        workspace.write_text(file, "# A recipe for edgetune. Run all of it with:  edgetune run " + f"{file}\n\n{recipe.dump(made)}")
    except OSError as error:
        raise RunError(f"cannot write {file}: {error.strerror}", mend="choose a folder that you can write to") from None
    out.result({"path": str(file), "task": task.name, "model": made.model}, f"wrote {file} ({task.name}, {made.model})", quiet=[str(file)])
    out.hint(f"edgetune run {file}")
