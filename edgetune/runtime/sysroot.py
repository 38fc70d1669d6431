"""What the emulator needs: qemu, and for Arm a small system with Python and the three packages of run.py.

Everything lies in the cache folder and needs no root: Debian packages (checked against Debian's signatures) and wheels (pinned by sha256).
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgetune import progress
from edgetune.errors import RequestError, StageError
from edgetune.runtime import cache, debian

PYTHON = "python3.11"  # of Debian's bookworm
PACKAGES = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6", "zlib1g"),
    *("libbz2-1.0", "libexpat1", "libffi8", "liblzma5", "libsqlite3-0", "libssl3", "libuuid1"),
)
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
WHEELS = {
    "onnxruntime==1.31.1": "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
    "numpy==2.4.6": "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
    "tokenizers==0.23.3": "ec82e80e65a862275b97c3d90b7a523df8d9519ee48aeb4e9625b2cc909274e0",
}
PARTS = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b"}  # main ID register, bits 4 to 15
FOLDERS = ("usr", "lib", "etc")
# The kernel tells a process what its CPU can: the bits of AT_HWCAP and AT_HWCAP2 (arch/arm64/include/uapi/asm/hwcap.h), in order,
# by the names that /proc/cpuinfo gives them.
HWCAP = (
    *("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp", "cpuid", "asimdrdm", "jscvt"),
    *("fcma", "lrcpc", "dcpop", "sha3", "sm3", "sm4", "asimddp", "sha512", "sve", "asimdfhm", "dit", "uscat", "ilrcpc", "flagm", "ssbs"),
    *("sb", "paca", "pacg"),
)
HWCAP2 = (
    *("dcpodp", "sve2", "sveaes", "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2", "frint", "svei8mm", "svef32mm", "svef64mm"),
    *("svebf16", "i8mm", "bf16", "dgh", "rng", "bti"),
)
PROBE = """
import ctypes
ask = ctypes.CDLL(None).getauxval
ask.restype, ask.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
print(ask(16), ask(26))
"""
CPUINFO = """processor\t: 0
BogoMIPS\t: 100.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 0

"""


def install_arm64() -> dict[str, Any]:
    """qemu for 64-bit Arm, and the system that it runs. Returns where they are and what is in them. Raises RequestError, StageError."""
    with progress.bar("installing the arm64 emulator", 4) as bar:
        bar.advance(0, "qemu")
        program = _install_qemu("aarch64")
        bar.advance(1, "system")
        known = cache.installed("emulator/arm64")
        root = cache.install("emulator/arm64", {"release": debian.RELEASE, "packages": list(PACKAGES), "wheels": WHEELS}, _make_root)
        bar.advance(2, "first import")
        if known is None:
            _try(program, root)
        bar.advance()
    return {"emulator": str(program), "sysroot": str(root), **cache.facts(root)}


def install_x86_64() -> dict[str, Any]:
    """qemu for x86-64, which runs this machine's own Python as an older CPU would. Raises RequestError, StageError."""
    with progress.bar("installing the x86_64 emulator", 1) as bar:
        program = _install_qemu("x86_64")
        bar.advance()
    return {"emulator": str(program)}


def qemu(architecture: str) -> Path | None:
    """qemu's user-mode emulator of `architecture`: the system's, or the one in the cache."""
    for name in (f"qemu-{architecture}-static", f"qemu-{architecture}"):
        if found := shutil.which(name):
            return Path(found)
    place = cache.installed(f"emulator/qemu-{architecture}")
    return place / f"qemu-{architecture}-static" if place else None


def root(cpu: str) -> Path:
    """The Arm system as it looks on `cpu`: onnxruntime believes /proc/cpuinfo, so each CPU has its own. Raises RequestError."""
    program, system = qemu("aarch64"), cache.installed("emulator/arm64")
    if program is None or system is None:
        raise RequestError("the arm64 emulator is not installed", mend="edgetune targets emulator install arm64")
    place = system / "cpus" / cpu
    if not (place / "proc" / "cpuinfo").is_file():
        (place / "proc").mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            if not (place / name).is_symlink():
                (place / name).symlink_to(Path("../..") / name, target_is_directory=True)
        text = CPUINFO.format(features=" ".join(_features(program, system, cpu)), part=PARTS.get(cpu, "0xd40"))
        (place / "proc" / "cpuinfo").write_text(text, "utf-8")
    return place


def _features(program: Path, system: Path, cpu: str) -> list[str]:
    command = [str(program), "-L", str(system), "-cpu", cpu, str(system / "usr" / "bin" / PYTHON), "-I", "-S", "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RequestError(f"{program.name} cannot be {cpu}", details=done.stderr.splitlines()[-3:], mend=f"{program} -cpu help lists them")
    first, second = (int(word) for word in done.stdout.split())
    return [name for bits, names in ((first, HWCAP), (second, HWCAP2)) for i, name in enumerate(names) if bits >> i & 1]


def _install_qemu(architecture: str) -> Path:
    if found := qemu(architecture):
        return found
    if platform.system() != "Linux":
        raise RequestError("qemu emulates a process on Linux only", mend="use Linux, on a machine or in a container")
    host = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

    def make(place: Path, downloads: Path) -> Mapping[str, Any]:
        files = debian.fetch(["qemu-user-static"], host, downloads)
        debian.unpack([*files.values()], downloads / "qemu")
        name = f"qemu-{architecture}-static"
        shutil.move(downloads / "qemu" / "usr" / "bin" / name, place / name)
        return {"debian": debian.described(files)}

    return cache.install(f"emulator/qemu-{architecture}", {"release": debian.RELEASE, "host": host}, make) / f"qemu-{architecture}-static"


def _make_root(place: Path, downloads: Path) -> Mapping[str, Any]:
    files = debian.fetch(PACKAGES, "arm64", downloads)
    debian.unpack([*files.values()], place)
    for wheel in _wheels(downloads):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place / "wheels")
    return {"debian": debian.described(files)}


def _wheels(downloads: Path) -> list[Path]:
    if find_spec("pip") is None:
        raise RequestError(f"{sys.executable} has no pip", mend=f"{sys.executable} -m ensurepip")
    wanted = downloads / "wheels.txt"
    wanted.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in WHEELS.items()), "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]
    command += [f"--platform={name}" for name in PLATFORMS]
    command += [f"--dest={downloads / 'wheels'}", f"--requirement={wanted}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError("pip cannot fetch the Arm wheels", details=done.stderr.splitlines()[-5:], mend="is there a network? run it again")
    return sorted((downloads / "wheels").glob("*.whl"))


def _try(program: Path, system: Path) -> None:
    place = root("max")
    code = f"import sys; sys.path.append({str(system / 'wheels')!r}); import numpy, tokenizers, onnxruntime"
    command = [str(program), "-L", str(place), "-cpu", "max", str(place / "usr" / "bin" / PYTHON), "-I", "-S", "-B", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        (system / "installed.json").unlink()
        details = [f"exit code {done.returncode}", *done.stderr.splitlines()[-5:]]
        raise StageError(
            f"onnxruntime cannot be loaded under {program}", details=details, mend="run it again; if that does not help, use another qemu"
        )
