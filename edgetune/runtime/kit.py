"""Measuring where edgetune is not: a folder to take to the device, and the result.json that comes back from it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgetune.errors import RequestError, RunError
from edgetune.runtime import device
from edgetune.runtime.measure import Measurement, pooled
from edgetune.runtime.verify import check_golden

Ms = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class _Pass(_Part):
    batch: int = Field(ge=1)
    sequence: int = Field(ge=1)
    lengths: Literal["real", "fixed"]
    ms: list[Ms] = Field(min_length=1)


class _Decode(_Part):
    prompt: int
    ms: list[Ms] = Field(min_length=1)


class _Process(_Part):
    """The JSON of `run.py --benchmark`."""

    onnxruntime: str
    provider: str
    threads: int = Field(ge=1)
    load_ms: Ms
    cold_start_ms: Ms
    peak_rss_bytes: int | None
    latency: list[_Pass] = Field(min_length=1)
    decode: _Decode | None


class _Golden(_Part):
    passed: bool
    rows: int = Field(ge=1)


class _Bundle(_Part):
    name: str
    edgetune_json: str
    golden: _Golden
    turns: list[Annotated[list[_Process], Field(min_length=1)]] = Field(min_length=1)


class _Machine(_Part):
    cpu: str
    architecture: str
    flags: list[str] | None
    cores: int | None
    memory_bytes: int | None
    os: str
    python: str
    load_before: float | None
    load_after: float | None
    busy: float | None


class _Turns(_Part):
    machine: _Machine
    bundles: list[_Bundle] = Field(min_length=1)


def plan(rounds: int, commands: Sequence[Sequence[str]], provider: str | None = None) -> dict[str, Any]:
    """What `device` shall do: `rounds` turns a bundle, each of them the `commands` (arguments of run.py)."""
    return {"rounds": rounds, "check": ["--golden", *(["--provider", provider] if provider else [])], "commands": [*map(list, commands)]}


def fill(folder: Path, bundles: Sequence[Path], asked: Mapping[str, Any]) -> None:
    """Put `bundles`, measure.py and the plan into the empty `folder`."""
    names = []
    for number, bundle in enumerate(bundles):
        names.append(f"bundles/{number}-{bundle.resolve().name}")
        shutil.copytree(bundle, folder / names[-1], ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(device.__file__, folder / "measure.py")
    (folder / "plan.json").write_text(json.dumps({**asked, "bundles": names}, indent=1) + "\n", "utf-8")


def write(folder: Path, bundles: Sequence[Path], asked: Mapping[str, Any]) -> None:
    """A folder to copy to a device, with the commands in its README.md. Raises RunError when it is there already."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    if inside := [bundle for bundle in bundles if folder.resolve().is_relative_to(bundle.resolve())]:
        raise RunError(f"{folder} is inside of {inside[0]}", mend="choose another folder for --kit")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty", mend="choose another folder for --kit")
    folder.mkdir(parents=True, exist_ok=True)
    fill(folder, bundles, asked)
    page = Environment(loader=PackageLoader("edgetune.runtime"), autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)
    names = [bundle.as_posix() for bundle in bundles]
    text = page.get_template("kit.md.jinja").render(kit=folder.resolve().name, bundles=" ".join(names), rounds=asked["rounds"])
    (folder / "README.md").write_text(text, "utf-8")


def read(path: Path) -> dict[str, Any]:
    """The result.json that measure.py wrote. Raises RequestError when it is something else."""
    mend = "give the result.json that measure.py of a kit wrote (edgetune benchmark BUNDLE --kit DIR)"
    try:
        tree = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}", mend=mend) from None
    except ValueError as error:
        raise RequestError(f"{path} is not JSON: {error}", mend=mend) from None
    return checked(tree, str(path), mend)


def checked(tree: Any, what: str, mend: str | None = None) -> dict[str, Any]:
    """`tree` when it is an `edgetune.turns/1`. Raises RequestError with every place that is wrong."""
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if schema != device.SCHEMA:
        raise RequestError(f"{what} is of the kind {schema}, not {device.SCHEMA}", mend=mend)
    try:
        _Turns.model_validate(tree)
    except ValidationError as error:
        details = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise RequestError(f"{what} is damaged", details=details, mend=mend) from None
    return dict(tree)


def measurements(found: Mapping[str, Any], bundles: Sequence[Path], where: str) -> list[Measurement]:
    """What an `edgetune.turns/1` says of `bundles`, in their order.

    Raises RequestError when it was measured with others, GateError when one computed something else there.
    """
    entries = {entry["edgetune_json"]: entry for entry in found["bundles"]}
    made = []
    for bundle in bundles:
        entry = entries.get(hashlib.sha256((bundle / "edgetune.json").read_bytes()).hexdigest())
        if entry is None:
            raise RequestError(
                f"{bundle} is not the bundle that was measured",
                details=[f"measured: {item['name']}, edgetune.json sha256 {item['edgetune_json'][:16]}" for item in entries.values()],
                mend="give the bundles that the kit was made of, unchanged",
            )
        check_golden(entry["golden"], f"{bundle} on {where}")
        made.append(pooled(bundle, entry["turns"]))
    return made
