"""What the device is: profiles in `targets/*.toml`, and files of the user's own, with `extends`."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgetune.errors import TargetError, did_you_mean
from edgetune.recipe import keys

Family = Literal["encoder", "decoder"]
Architecture = Literal["x86_64", "aarch64"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Runtime(Section):
    """What will load the file."""

    provider: str = "CPUExecutionProvider"
    onnxruntime_min: str = Field("1.20", pattern=r"^\d+\.\d+$")
    opset: int = Field(20, ge=17, le=23)
    ir: int = Field(10, ge=8, le=11)
    threads: int = Field(1, ge=1)


class Quantization(Section):
    """Schemes in order of preference, by family of model; `saturates`: 8-bit dot products overflow 16-bit sums (no VNNI)."""

    encoder: tuple[str, ...]
    decoder: tuple[str, ...]
    saturates: bool = False


class Budget(Section):
    size_mb: float | None = Field(None, gt=0)
    memory_mb: float | None = Field(None, gt=0)
    max_drop: float = Field(0.01, ge=0, le=1)
    max_perplexity_increase: float = Field(0.10, ge=0)


class Target(Section):
    name: str
    title: str
    architecture: Architecture
    cpu: str = "any"
    isa: tuple[str, ...] = ()
    verified: str = Field("not run", pattern=r"^(native \d{4}-\d\d-\d\d|parity (emulated|simulated) \d{4}-\d\d-\d\d|not run)$")
    runtime: Runtime = Runtime()
    quantization: Quantization
    budget: Budget = Budget()

    @model_validator(mode="after")
    def _agrees(self) -> Target:
        vnni = {"avx512_vnni", "avx_vnni", "amx_int8"} & set(self.isa)
        if self.quantization.saturates and vnni:
            raise ValueError(f"quantization.saturates = true contradicts isa {', '.join(sorted(vnni))}, which does not saturate")
        foreign = {"x86_64": {"neon", "dotprod", "i8mm"}, "aarch64": {"avx2", "avx512_vnni", "avx_vnni", "amx_int8"}}[self.architecture]
        if wrong := foreign & set(self.isa):
            raise ValueError(f"isa {', '.join(sorted(wrong))} does not exist on architecture {self.architecture}")
        return self


def load(name: str) -> Target:
    """The shipped profile `name`, or the profile in the file `name`. Raises TargetError."""
    if name in names():
        return _load(_folder() / f"{name}.toml")
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return _load(path)
    raise TargetError(f'unknown target "{name}"{did_you_mean(name, names())}', mend="edgetune targets list")


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def detect() -> str:
    """The shipped profile that fits this machine best: the same architecture, and the most of its ISA.

    Raises TargetError when no profile has this architecture.
    """
    here = isa()
    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    fitting = [t for t in map(load, names()) if t.architecture == machine and set(t.isa) <= here and t.cpu == "any"]
    if not fitting:
        raise TargetError(f"no profile fits this machine ({machine})", details=[f"instruction sets: {' '.join(sorted(here))}"])
    return max(fitting, key=lambda target: len(target.isa)).name


def isa() -> set[str]:
    """Instruction sets of this machine that profiles name, as Linux spells them (macOS: what every Apple chip has)."""
    if platform.system() == "Darwin":
        return {"neon", "dotprod"} if platform.machine() == "arm64" else {"avx2"}
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith(("flags", "features")):
                flags |= set(line.partition(":")[2].split())
    spelled = {"asimd": "neon", "asimddp": "dotprod"}
    return {spelled.get(flag, flag) for flag in flags} & {
        *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "neon", "dotprod", "i8mm")
    }


def is_host(target: Target) -> bool:
    """True when this machine can stand for the target: the same architecture and, of its profiles, the one detected."""
    try:
        return detect() == target.name
    except TargetError:
        return False


def _load(path: Path, seen: tuple[Path, ...] = ()) -> Target:
    tree = _resolve(path, seen)
    tree["name"] = path.stem
    try:
        return Target.model_validate(tree)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'profile'}: "
            + (f"unknown key{_near(item['loc'])}" if item["type"] == "extra_forbidden" else item["msg"].removeprefix("Value error, "))
            for item in error.errors()
        ]
        raise TargetError(
            f"{path} is not a valid target", details=problems, mend="edgetune targets show x86_64 shows one that is"
        ) from None


def _near(place: tuple[str | int, ...]) -> str:
    return did_you_mean(".".join(map(str, place)), [*keys(Target), "extends"])


def _resolve(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise TargetError(f"targets extend each other in a circle: {' -> '.join(p.name for p in (*seen, path))}")
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise TargetError(f"no target file at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise TargetError(f"cannot read {path}: {error.strerror}") from None
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    own = path.parent / f"{parent}.toml"
    base = own if own.is_file() else _folder() / f"{parent}.toml"
    if not base.is_file():
        raise TargetError(f'{path} extends "{parent}", which is no target{did_you_mean(str(parent), names())}')
    inherited = _resolve(base, (*seen, path))
    inherited.pop("verified", None)
    return _merge(inherited, tree)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def _folder() -> Path:
    packaged = Path(__file__).parent / "_targets"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "targets"
