"""Does a target's list of schemes make sense? Profiles are core and do not know the table of schemes; this does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgetune import target
from edgetune.errors import TargetError, did_you_mean
from edgetune.profile import FAMILIES, Target, version
from edgetune.quant import SCHEMES


def load(name: str) -> Target:
    """As `target.load`, with its schemes checked too.

    Raises TargetError with everything that is wrong at once: also each scheme that is unknown, not for that family, or too new for its runtime.
    """
    schemes = list(_problems(target.tree(name)))
    try:
        found = target.load(name)
    except TargetError as error:
        raise TargetError(str(error), details=[*error.details, *schemes], mend=error.mend) from None
    if schemes:
        raise TargetError(f"{name} is not a valid target", details=schemes, mend="docs/reference/schemes.md lists the schemes")
    return found


def _problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """`tree` is a profile as it was read: what is no table or no list, pydantic tells."""
    given = tree.get("quantization")
    runtime = tree.get("runtime")
    oldest = str(runtime.get("onnxruntime_min", "")) if isinstance(runtime, dict) else ""
    for family in FAMILIES:
        names = given.get(family) if isinstance(given, dict) else None
        for name in names if isinstance(names, list) else ():
            where = f"quantization.{family}: {name}"
            scheme = SCHEMES.get(name) if isinstance(name, str) else None
            if scheme is None:
                yield f"{where} is unknown{did_you_mean(str(name), SCHEMES)}"
            elif family not in scheme.families:
                yield f"{where} is not for {family}s"
            elif oldest.replace(".", "").isdecimal() and version(scheme.onnxruntime_min) > version(oldest):
                yield f"{where} needs onnxruntime {scheme.onnxruntime_min}, and runtime.onnxruntime_min is {oldest}"
