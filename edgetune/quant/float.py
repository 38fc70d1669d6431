"""The float graph as it is: the candidate that always keeps the metric."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def fp32(graph: Path, out: Path, *, saturates: bool) -> dict[str, Any]:
    shutil.copyfile(graph, out)
    return {}
