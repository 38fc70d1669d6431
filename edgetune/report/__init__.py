"""`report.json` and `report.html` of a run: the facts of every finished stage, and nothing else."""

from __future__ import annotations

from typing import Any

from edgetune import __version__
from edgetune.workspace import Workspace, write_json, write_text

SCHEMA = "edgetune.report/1"


def assemble(workspace: Workspace) -> dict[str, Any]:
    """The report as JSON values: `prepare`, `adapt`, `merge`, `graph`, `export.<target>`, `benchmark`, each with what was noted."""
    recipe = workspace.recipe
    report: dict[str, Any] = {"schema": SCHEMA, "edgetune": __version__, "recipe": recipe.model_dump(mode="json"), "notes": {}}
    for name, entry in workspace.manifest["stages"].items():
        stage, _, part = name.partition(":")
        facts = {**entry["facts"], "seconds": entry["seconds"], "peak_rss_bytes": entry["peak_rss_bytes"], "tools": entry["tools"]}
        report["notes"][name] = entry["notes"]
        if part:
            report.setdefault(stage, {})[part] = {**facts, "folder": entry["folder"]}
        else:
            report[stage] = facts
    return report


def refresh(workspace: Workspace) -> None:
    """Write both files anew from the manifest."""
    from edgetune.report.page import html

    report = assemble(workspace)
    write_json(workspace.path / "report.json", report)
    write_text(workspace.path / "report.html", html(report))
