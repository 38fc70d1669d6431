"""edgetune: labelled text and a pre-trained model in, a small, fast, verified ONNX bundle out."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "edgetune.recipe",
    "Target": "edgetune.target",
    "EdgetuneError": "edgetune.errors",
    "run": "edgetune.pipeline",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
