"""A run's report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def html(report: Mapping[str, Any]) -> str:
    return "<!doctype html>"
