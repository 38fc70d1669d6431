"""Which device: profiles in `targets/*.toml` and in files of the user's own, with `extends`; and which of them is this machine."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgetune.errors import TargetError, did_you_mean
from edgetune.profile import CPU, ISA, VNNI, Architecture, Target
from edgetune.recipe import keys

ARCHITECTURES: dict[str, Architecture] = {"arm64": "aarch64", "ARM64": "aarch64", "AMD64": "x86_64"}  # as Python says it elsewhere
SYSTEMS = {"Linux": "linux", "Darwin": "macos", "Windows": "windows", "Android": "android", "iOS": "ios", "Emscripten": "browser"}
BOARD = "/proc/device-tree/model"


def load(name: str) -> Target:
    """The shipped profile `name`, or the profile in the file `name`. Raises TargetError with everything that is wrong in it."""
    path = _path(name)
    try:
        return Target.model_validate(tree(name) | {"name": path.stem})
    except ValidationError as error:
        problems = [line for item in error.errors() for line in _problems(item)]
        raise TargetError(
            f"{path} is not a valid target", details=problems, mend="edgetune targets show x86_64 shows one that is"
        ) from None


def tree(name: str) -> dict[str, Any]:
    """The profile `name` as it was written, with what it inherits. Raises TargetError when it cannot be found or read."""
    return _resolve(_path(name), ())


@cache
def names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def detect() -> str:
    """The shipped CPU profile that fits this machine best: its board, its system, and then the most of its ISA.

    Raises TargetError when no profile has this architecture.
    """
    here, machine, system, model = isa(), architecture(), SYSTEMS.get(platform.system(), ""), board()
    fitting = [
        target
        for target in map(load, names())
        if target.architecture == machine
        and target.runtime.provider == CPU
        and target.system in ("any", system)
        and model.startswith(target.board)
        and set(target.isa) <= here
    ]
    if not fitting:
        raise TargetError(
            f"no profile fits this machine ({machine})",
            details=[f"instruction sets: {' '.join(sorted(here))}"],
            mend="write a profile of your own: docs/targets.md",
        )
    return max(fitting, key=lambda target: (bool(target.board), target.system != "any", len(target.isa))).name


def architecture() -> str:
    """Of this machine, as profiles spell it."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def board() -> str:
    """What the firmware calls this machine, such as "Raspberry Pi 5 Model B Rev 1.0"; empty on most."""
    path = Path(BOARD)
    return path.read_text(errors="replace").strip("\0 \n") if path.exists() else ""


def isa() -> set[str]:
    """Instruction sets of this machine that profiles name."""
    return _ISAS.get(platform.system(), _linux)()


def is_host(target: Target) -> bool:
    """True when this machine can stand for the target: it is the profile that is detected here, as it ships."""
    try:
        return target == load(detect())
    except TargetError:
        return False


def _linux() -> set[str]:
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.lower().startswith(("flags", "features")):
                flags |= set(line.partition(":")[2].split())
    return spelled(flags)


def spelled(flags: Iterable[str]) -> set[str]:
    """Those of Linux's `flags` that profiles name, as these spell them."""
    names = {"asimd": "neon", "asimddp": "dotprod", "asimdhp": "fp16"}
    found = {names.get(flag, flag) for flag in flags} & {name for names in ISA.values() for name in names}
    return found | ({"vnni"} if found & VNNI else set())


def _macos() -> set[str]:
    """What every Apple chip has, and every Intel Mac that runs a current macOS."""
    return {"neon", "dotprod", "fp16"} if platform.machine() == "arm64" else {"avx2"}


def _windows() -> set[str]:
    """What IsProcessorFeaturePresent tells (winnt.h): AVX2, AVX-512 F, NEON, dot products. It does not know of VNNI."""
    import ctypes

    present = ctypes.windll.kernel32.IsProcessorFeaturePresent  # type: ignore[attr-defined]
    return {name for name, feature in (("neon", 19), ("avx2", 40), ("avx512f", 41), ("dotprod", 43)) if present(feature)}


_ISAS = {"Darwin": _macos, "Windows": _windows}


def _path(name: str) -> Path:
    if name in names():
        return _folder() / f"{name}.toml"
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        return path
    raise TargetError(f'unknown target "{name}"{did_you_mean(name, names())}', mend="edgetune targets list")


def _problems(item: Any) -> list[str]:
    """One error of pydantic in lines; several contradictions come as one error."""
    place = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return [f"{place}: unknown key{_near(item['loc'])}"]
    said = item["msg"].removeprefix("Value error, ")
    return [f"{place}: {said}"] if place else said.splitlines()


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
    if "isa" in tree:
        inherited.pop("emulator", None)  # it stands for another CPU
    return _merge(inherited, tree)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        merged[key] = _merge(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def _folder() -> Path:
    packaged = Path(__file__).parent / "_targets"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "targets"
