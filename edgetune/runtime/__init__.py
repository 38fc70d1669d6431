"""Running what was built: the worker that ships in every bundle, its checks and its measurement.

`worker` is copied into each bundle as run.py and imported here for `predict`: one source of truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.runtime.worker import Bundle


def load(folder: Path, *, threads: int | None = None, provider: str | None = None) -> Bundle:
    """The bundle in `folder`, ready to predict, with edgetune's own worker. Raises RequestError."""
    from edgetune.errors import RequestError
    from edgetune.runtime.worker import Bundle, BundleError

    try:
        return Bundle(folder, threads, provider)
    except BundleError as error:
        raise RequestError(str(error)) from None


def available(provider: str) -> bool:
    """Whether the onnxruntime of this machine has the execution provider `provider`."""
    import os

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return provider in onnxruntime.get_available_providers()
