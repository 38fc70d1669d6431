"""Bundles on CPUs that are not here: the Arm system and qemu that `make tools` installs, and what is said where they are missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tools import missing

from edgetune import target
from edgetune.errors import GateError, RequestError, StageError
from edgetune.runtime import cache, emulator, node, runners, sysroot
from edgetune.runtime.verify import verify
from edgetune.stages.benchmark import benchmark

SPY = "import json, platform; print(json.dumps({'passed': True, 'machine': platform.machine(), 'rows': 1}))\n"


@pytest.fixture
def arm() -> None:
    if sysroot.qemu("aarch64") is None or cache.installed("emulator/arm64") is None:
        missing("the arm64 emulator")


@pytest.fixture
def of(classifier: Path, tmp_path: Path) -> Callable[..., Path]:
    """of("rpi5") is a copy of the classifier's bundle for that target; `changes` are file -> text."""

    def make(name: str, **changes: str) -> Path:
        copy = Path(shutil.copytree(classifier, tmp_path / name))
        facts = json.loads((copy / "edgetune.json").read_text())
        architecture = target.load(name).architecture if name in target.names() else "aarch64"
        for file, text in changes.items():
            (copy / file.replace("__", ".")).write_text(text)
        (copy / "edgetune.json").write_text(json.dumps(facts | {"target": name, "architecture": architecture}))
        return copy

    return make


def run(bundle: Path, **options: int) -> dict:
    with runners.opened("emulator", **options) as host:
        done = host.run(bundle, ["--golden"])
    assert done.found is not None, done.stderr
    return {**done.found, "where": done.where}


@pytest.mark.slow
@pytest.mark.usefixtures("arm")
@pytest.mark.parametrize(("name", "cpu"), [("arm64", "cortex-a53"), ("rpi4", "cortex-a72"), ("rpi5", "cortex-a76")])
def test_an_arm_cpu_computes_the_same(of, name: str, cpu: str) -> None:
    found = run(of(name), limit=8)
    assert found["passed"] is True, found["failures"]
    assert (found["rows"], found["of"]) == (8, 110)
    assert found["max_error"] < 1e-4
    assert found["where"] == f"qemu-aarch64 -cpu {cpu}"


@pytest.mark.usefixtures("arm")
def test_it_is_another_machine_and_sees_the_right_cpu(of) -> None:
    assert run(of("rpi5", run__py=SPY))["machine"] == "aarch64"
    features = {cpu: (sysroot.root(cpu) / "proc" / "cpuinfo").read_text() for cpu in ("cortex-a53", "cortex-a76")}
    assert "asimddp" not in features["cortex-a53"] and "0xd03" in features["cortex-a53"]
    assert "asimddp" in features["cortex-a76"] and "0xd0b" in features["cortex-a76"]
    with pytest.raises(RequestError, match="cannot be no-such-cpu"):
        sysroot.root("no-such-cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("arm")
def test_what_differs_there_is_refused(of) -> None:
    bundle = of("arm64")
    rows = [json.loads(line) for line in (bundle / "golden.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**row, "logits": [value + 1 for value in row["logits"]]}) + "\n" for row in rows)
    bad = of("rpi4", golden__jsonl=text)
    from edgetune.artifact import file_digest

    facts = json.loads((bad / "edgetune.json").read_text())
    facts["sha256"]["golden.jsonl"] = file_digest(bad / "golden.jsonl")
    (bad / "edgetune.json").write_text(json.dumps(facts))
    with pytest.raises(GateError, match=r"8 of 8 golden vectors .* on qemu-aarch64 -cpu cortex-a72 differ"):
        verify(bad, "emulator", limit=8)


@pytest.mark.slow
def test_an_older_x86(of) -> None:
    if sysroot.qemu("x86_64") is None:
        missing("qemu-x86_64")
    found = verify(of("x86_64"), "emulator", limit=8)
    assert found["on"] == "qemu-x86_64 -cpu Haswell-v1"
    assert found["golden"]["passed"] is True


def test_the_rows_are_short_and_spread(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(classifier.parent)
    copy, rows, every = emulator._shortened(Path(classifier.name), tmp_path / "short", 10)
    assert (copy / "edgetune.json").read_text() == (classifier / "edgetune.json").read_text()
    kept = (copy / "golden.jsonl").read_text().splitlines()
    original = (classifier / "golden.jsonl").read_text().splitlines()
    assert (rows, every, len(kept)) == (10, 110, 10)
    places = [original.index(line) for line in kept]
    assert places == sorted(set(places)) and places[-1] > 80
    assert all(len(json.loads(line)["input_ids"]) <= emulator.LONGEST for line in kept)
    assert not (copy / "run.py").is_symlink()
    assert (classifier / "golden.jsonl").read_text().splitlines() == original


def test_which_cpu_stands_for_a_target() -> None:
    assert emulator.cpu_of("rpi5", "aarch64").cpu == "cortex-a76"
    assert emulator.cpu_of("my-own-board", "aarch64") == target.load("arm64").emulator
    with pytest.raises(RequestError, match=r"has no \[emulator\]"):
        emulator.cpu_of("web-wasm", "wasm32")


def test_where_it_is_missing(of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, mend in (("rpi5", "arm64"), ("x86_64", "x86_64")):
        with pytest.raises(RequestError, match="is not installed") as caught:
            verify(of(name), "emulator")
        assert caught.value.mend == f"edgetune targets emulator install {mend}"
        with pytest.raises(RequestError, match="no apt-get on this machine"):
            runners.install(mend)
    with pytest.raises(RequestError, match="no node on this machine"):
        runners.install("web")
    with pytest.raises(RequestError, match="no node on this machine"):
        verify(of("arm64"), "node")
    with pytest.raises(RequestError, match=r'did you mean "arm64"'):
        runners.install("arm46")


@pytest.mark.parametrize("on", ["emulator", "node"])
def test_it_tells_no_time(classifier: Path, on: str) -> None:
    with pytest.raises(RequestError, match="its times would mean nothing"):
        benchmark([classifier], on=on)


def test_the_cache_is_filled_once_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path))
    made: list[bool] = []

    def make(place: Path, downloads: Path) -> dict[str, int]:
        fetched = downloads / "large.bin"
        made.append(fetched.exists())
        fetched.touch()
        (place / f"file{len(made)}").touch()
        if len(made) == 1:
            raise StageError("no network")
        return {"files": 1}

    with pytest.raises(StageError):
        cache.install("thing", {"version": 1}, make)
    assert cache.installed("thing") is None
    place = cache.install("thing", {"version": 1}, make)
    assert made == [False, True], "what was fetched is not fetched again"
    assert [path.name for path in place.glob("file*")] == ["file2"]
    assert cache.install("thing", {"version": 1}, make) == cache.installed("thing") == place
    assert len(made) == 2
    cache.install("thing", {"version": 2}, make)
    assert made == [False, True, False]
    assert cache.facts(place) == {"key": {"version": 2}, "files": 1}
    (tmp_path / "file").touch()
    monkeypatch.setenv("EDGETUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(RequestError, match="cannot write to"):
        cache.install("thing", {}, make)


def test_what_is_fetched_is_pinned() -> None:
    lock = json.loads((node.HERE / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
    assert {name.partition("==")[0] for name in sysroot.WHEELS} == {"onnxruntime", "numpy", "tokenizers"}
