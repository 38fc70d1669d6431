"""What all stages share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.artifact import file_digest, folder_digest
from edgetune.report import refresh
from edgetune.workspace import Workspace


def staged(workspace: Workspace, name: str, kind: Any, folder: str, make: Any, key: Mapping[str, Any], parents: Any) -> Any:
    """One stage, and the report brought up to date with it."""
    done = workspace.stage(name, kind, folder, make, key=key, parents=parents)
    refresh(workspace)
    return done


def digest(place: str) -> str:
    """Of a file or folder of the user's; empty when there is none."""
    path = Path(place).expanduser() if place else None
    if path is None or not path.exists():
        return ""
    return folder_digest(path) if path.is_dir() else file_digest(path)
