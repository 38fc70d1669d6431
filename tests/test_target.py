"""Target profiles: inheritance, contradictions, and which one is this machine."""

from __future__ import annotations

import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgetune import target
from edgetune.errors import TargetError


def profile(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def test_what_a_profile_extends_it_inherits(tmp_path: Path) -> None:
    name = profile(
        tmp_path, "pi", 'extends = "arm64"\ntitle = "Pi"\nisa = ["neon", "dotprod"]\n[session]\nthreads = 4\n[budget]\nsize_mb = 32\n'
    )
    found, base = target.load(name), target.load("arm64")
    assert (found.name, found.title, found.isa, found.session.threads, found.budget.size_mb) == ("pi", "Pi", ("neon", "dotprod"), 4, 32)
    assert found.runtime.opset == base.runtime.opset
    assert found.quantization == base.quantization
    assert found.budget.max_drop == base.budget.max_drop


def test_an_emulated_cpu_is_inherited_only_with_its_isa(tmp_path: Path) -> None:
    assert target.load(profile(tmp_path, "same", 'extends = "rpi4"\n')).emulator == target.load("rpi4").emulator
    assert target.load(profile(tmp_path, "newer", 'extends = "rpi4"\nisa = ["neon", "i8mm"]\n')).emulator is None


def test_that_another_device_was_verified_is_not_inherited(tmp_path: Path) -> None:
    assert target.load("x86_64-vnni").verified.startswith("native")
    assert target.load(profile(tmp_path, "mine", 'extends = "x86_64-vnni"\ntitle = "Mine"\n')).verified == "not run"


def test_a_neighbour_is_extended_before_a_shipped_profile(tmp_path: Path) -> None:
    profile(tmp_path, "arm64", 'extends = "x86_64"\ntitle = "Not the shipped one"\n')
    assert target.load(profile(tmp_path, "mine", 'extends = "arm64"\ntitle = "Mine"\n')).architecture == "x86_64"


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
def test_a_circle_is_told(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name, parent in zip(names, (*names[1:], names[0]), strict=True):
        profile(tmp_path, name, f'extends = "{parent}"\ntitle = "x"\n')
    with pytest.raises(TargetError, match=r"circle: a\.toml -> .*a\.toml"):
        target.load(str(tmp_path / "a.toml"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "arm64"\n[runtime]\nopset = 99\n', "runtime.opset: Input should be less than or equal to 23"),
        ('extends = "arm64"\nverified = "yes"\n', "verified: String should match"),
        ('extends = "arm64"\narchitecture = "riscv64"\n', "architecture: Input should be 'x86_64', 'aarch64' or 'wasm32'"),
        ('extends = "arm64"\nruntime = 3\n', "runtime: Input should be a valid dictionary"),
        ('title = "x"\narchitecture = "aarch64"\n', "quantization: Field required"),
        ('extends = "arm64"\n[budget]\nsize = 3\n', 'budget.size: unknown key (did you mean "budget.size_mb"?)'),
        ('extends = "arm64"\nthreads = 4\n', 'threads: unknown key (did you mean "session.threads"?)'),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TargetError, match="is not a valid target") as raised:
        target.load(profile(tmp_path, "mine", text))
    assert any(said in detail for detail in raised.value.details), raised.value.details
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "amr64"', 'extends "amr64", which is no target (did you mean "arm64"?)'),
        ("title = ", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TargetError) as raised:
        target.load(str(path))
    assert said in str(raised.value)


def test_an_unknown_name() -> None:
    with pytest.raises(TargetError, match=r'unknown target "x86_46" \(did you mean "x86_64"\?\)'):
        target.load("x86_46")
    with pytest.raises(TargetError, match="no target file at"):
        target.load("nowhere/mine.toml")


def machine(monkeypatch: pytest.MonkeyPatch, name: str, isa: set[str], system: str = "Linux", board: str = "") -> None:
    monkeypatch.setattr(platform, "machine", lambda: name)
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(target, "isa", lambda: isa)
    monkeypatch.setattr(target, "board", lambda: board)


A76 = {"neon", "dotprod", "fp16"}


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (("x86_64", {"avx2"}), "x86_64"),
        (("x86_64", {"avx2", "avx512f", "avx512_vnni", "vnni"}), "x86_64-vnni"),
        (("x86_64", {"avx2", "avx_vnni", "vnni"}), "x86_64-vnni"),
        (("x86_64", {"avx2", "avx512f", "avx512_vnni", "vnni", "amx_int8"}), "x86_64-amx"),
        (("AMD64", {"avx2", "avx512f"}, "Windows"), "windows"),
        (("ARM64", {"neon"}, "Windows"), "arm64"),
        (("arm64", A76, "Darwin"), "macos"),
        (("x86_64", {"avx2"}, "Darwin"), "x86_64"),
        (("aarch64", A76), "arm64"),
        (("aarch64", A76 | {"i8mm"}), "arm64-i8mm"),
        (("aarch64", {"neon"}, "Linux", "Raspberry Pi 4 Model B Rev 1.4"), "rpi4"),
        (("aarch64", A76, "Linux", "Raspberry Pi 5 Model B Rev 1.0"), "rpi5"),
        (("aarch64", {"neon"}, "Linux", "Raspberry Pi 3 Model B"), "arm64"),
        (("aarch64", A76, "Linux", "NVIDIA Jetson Orin Nano"), "arm64"),  # its profile is for the GPU
        (("aarch64", A76, "Android"), "android"),
        (("arm64", A76, "iOS"), "ios"),
    ],
)
def test_detect(monkeypatch: pytest.MonkeyPatch, here: tuple[Any, ...], expected: str) -> None:
    machine(monkeypatch, *here)
    assert target.detect() == expected
    assert target.is_host(target.load(expected))
    assert not any(target.is_host(target.load(name)) for name in target.names() if name != expected)


def test_a_file_with_the_name_of_a_shipped_profile_is_not_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "x86_64", {"avx2"})
    assert not target.is_host(target.load(profile(tmp_path, "x86_64", 'extends = "arm64"\ntitle = "Mine"\n')))


@pytest.mark.parametrize(("name", "isa"), [("riscv64", set[str]()), ("x86_64", set[str]())])
def test_a_machine_that_no_profile_fits(monkeypatch: pytest.MonkeyPatch, name: str, isa: set[str]) -> None:
    machine(monkeypatch, name, isa)
    with pytest.raises(TargetError, match=f"no profile fits this machine \\({name}\\)"):
        target.detect()
    assert not target.is_host(target.load("arm64"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512f avx512_vnni sse2\n", {"avx2", "avx512f", "avx512_vnni", "vnni"}),
        ("processor : 0\nflags\t\t: avx2 avx_vnni\n", {"avx2", "avx_vnni", "vnni"}),
        ("processor : 0\nFeatures\t: fp asimd asimddp asimdhp crc32 i8mm\n", {"neon", "dotprod", "fp16", "i8mm"}),
        ("", set[str]()),
    ],
)
def test_isa_is_read_as_linux_spells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: set[str]) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(text)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(target, "Path", lambda name: cpuinfo if name == "/proc/cpuinfo" else Path(name))
    assert target.isa() == expected


def test_isa_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert target.isa() == {"neon", "dotprod", "fp16"}


def test_isa_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    kernel = SimpleNamespace(IsProcessorFeaturePresent=lambda feature: feature in (40, 41))
    monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    assert target.isa() == {"avx2", "avx512f"}


def test_the_board_is_what_the_firmware_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model"
    monkeypatch.setattr(target, "BOARD", str(model))
    assert target.board() == ""
    model.write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert target.board() == "Raspberry Pi 5 Model B Rev 1.0"
