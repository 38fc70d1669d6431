"""Bundles on another machine: an sshd on this one, reached with keys that the test makes."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_server import sshd

from edgetune.errors import GateError, RequestError
from edgetune.runtime import runners
from edgetune.runtime.measure import Shape
from edgetune.runtime.verify import verify
from edgetune.stages.benchmark import benchmark

QUICK = {"rounds": 2, "shapes": [Shape(1, None), Shape(1, 16), Shape(2, 16)]}
NOBODY = "ssh://127.0.0.1:1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, sshd(tmp_path_factory.mktemp("sshd"), patch) as where:
        yield where


@pytest.fixture
def there(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server, whose temporary folders must be gone after the test."""
    yield server
    assert not left(), "a temporary folder was left there"


def left() -> list[Path]:
    return [path for path in Path("/tmp").glob("edgetune.??????") if path.is_dir()]


def test_it_measures_there_in_turns(there: str, classifier: Path, generator: Path) -> None:
    found = benchmark([classifier, generator], on=there, python=sys.executable, **QUICK)
    json.dumps(found, allow_nan=False)
    local = benchmark([classifier, generator], rounds=1, shapes=[Shape(1, 16)])
    assert found["schema"] == local["schema"] == "edgetune.benchmark/1"
    assert found["machine"].keys() == local["machine"].keys()
    for name in ("cpu", "architecture", "isa", "cores", "memory_bytes", "os", "python", "onnxruntime"):
        assert found["machine"][name] == local["machine"][name], "it is the same machine"
    for here, entry in zip(local["bundles"], found["bundles"], strict=True):
        assert entry.keys() == here.keys()
        assert [(item["batch"], item["lengths"]) for item in entry["latency"]] == [(1, "real"), (1, "fixed"), (2, "fixed")]
        assert all(item["p50_ms"] > 0 for item in entry["latency"])
        assert entry["size_bytes"] == here["size_bytes"]
    assert found["bundles"][1]["decode_tokens_per_s"] > 0


def test_it_verifies_there(there: str, classifier: Path, generator: Path) -> None:
    for bundle in (classifier, generator):
        found = verify(bundle, there, python=sys.executable)
        assert found["golden"]["passed"] is True
        assert found["golden"]["rows"] >= 100
        assert found["on"] == there.removeprefix("ssh://").rpartition(":")[0]


def test_what_differs_there_is_refused(there: str, classifier: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(classifier, tmp_path / "bundle"))
    rows = [json.loads(line) for line in (copy / "golden.jsonl").read_text().splitlines()]
    rows[3]["logits"][0] += 1
    (copy / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(GateError, match="1 of 110 golden vectors") as caught:
        benchmark([copy], on=there, python=sys.executable, **QUICK)
    assert "row 4" in caught.value.details[0]


def test_a_provider_that_is_not_there(there: str, classifier: Path) -> None:
    with pytest.raises(RequestError, match="cannot measure on") as caught:
        benchmark([classifier], on=there, python=sys.executable, provider="NoSuchProvider", **QUICK)
    assert "provider NoSuchProvider is not in this onnxruntime" in "".join(caught.value.details)


def test_a_python_without_the_packages(there: str, classifier: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare python"  # a blank in its path, and no site-packages
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    for ask in (lambda: benchmark([classifier], on=there, python=str(bare), **QUICK), lambda: verify(classifier, there, python=str(bare))):
        with pytest.raises(RequestError) as caught:
            ask()
        assert "onnxruntime" in "".join(caught.value.details)
        assert caught.value.mend is not None and caught.value.mend.endswith(f"'{bare}' -m pip install onnxruntime tokenizers numpy")


def test_no_python_there(there: str, classifier: Path) -> None:
    with pytest.raises(RequestError, match=r"no /no/such/python on .*@127\.0\.0\.1"):
        verify(classifier, there, python="/no/such/python")
    old = "echo"  # ends well whatever it is asked, so it stands for a Python that answers
    with pytest.raises(RequestError, match="wrote no result"):
        benchmark([classifier], on=there, python=old, **QUICK)


def test_a_host_that_does_not_answer(classifier: Path, server: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"cannot reach 127\.0\.0\.1") as caught:
        verify(classifier, NOBODY)
    assert "refused" in "".join(caught.value.details)
    assert caught.value.mend is not None and "BatchMode=yes" in caught.value.mend
    stranger = server.replace(server.split("@")[0], "ssh://nobody-of-that-name")
    with pytest.raises(RequestError, match="cannot reach nobody-of-that-name@") as caught:
        verify(classifier, stranger)
    assert "Permission denied" in "".join(caught.value.details)


def test_no_ssh_here(classifier: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="no ssh on this machine"):
        verify(classifier, NOBODY)


@pytest.mark.parametrize(
    "where",
    ["ssh://", "ssh://-oProxyCommand=x", "ssh://-x@host", "ssh://u:secret@host", "ssh://host/path", "ssh://host:port", "ssh", "ftp://x"],
)
def test_what_is_no_address(classifier: Path, where: str) -> None:
    with pytest.raises(RequestError, match=r"is not an address|unknown runner"):
        verify(classifier, where)


def test_a_runner_that_is_not_known() -> None:
    with pytest.raises(RequestError, match=r'did you mean "local"'), runners.opened("locel"):
        pass
    with pytest.raises(RequestError, match="--python is of no use with --on local"), runners.opened("local", python="python3"):
        pass
