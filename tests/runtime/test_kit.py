"""The folder that goes to a device, and what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.errors import GateError, RequestError, RunError
from edgetune.runtime import kit
from edgetune.runtime.measure import Shape, commands
from edgetune.stages.benchmark import UNSTEADY, benchmark

PLAN = kit.plan(2, commands([Shape(1, None), Shape(1, 16)], runs=5, seconds=0.5))


def on_the_device(folder: Path) -> subprocess.CompletedProcess[str]:
    """What its README.md says, in an environment that knows nothing of edgetune."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(folder / "measure.py")]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder.parent, env=environment)


@pytest.fixture(scope="module")
def result(classifier: Path, generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit") / "phone"
    kit.write(folder, [classifier, generator], PLAN)
    done = on_the_device(folder)
    assert done.returncode == 0, done.stderr
    assert "turn 4 of 4" in done.stdout
    return folder / "result.json"


@pytest.fixture
def changed(result: Path, tmp_path: Path) -> Callable[[Callable[[Any], Any]], Path]:
    def change(how: Callable[[Any], Any]) -> Path:
        tree = json.loads(result.read_text())
        how(tree)
        path = tmp_path / "result.json"
        path.write_text(json.dumps(tree))
        return path

    return change


def test_the_result_becomes_the_same_report(result: Path, classifier: Path, generator: Path) -> None:
    raw = json.loads(result.read_text())
    found = benchmark([generator, classifier], result=result)  # in an order of one's own
    json.dumps(found, allow_nan=False)
    assert found["schema"] == "edgetune.benchmark/1"
    assert [entry["path"] for entry in found["bundles"]] == [str(generator), str(classifier)]
    first = found["bundles"][1]["latency"][0]
    times = [ms for turn in raw["bundles"][0]["turns"] for ms in turn[0]["latency"][0]["ms"]]
    assert first["runs"] == len(times)
    assert min(times) <= first["p50_ms"] <= max(times)
    assert found["machine"]["cpu"] == raw["machine"]["cpu"]
    assert "flags" not in found["machine"]


def test_the_folder_says_what_to_do(result: Path, classifier: Path) -> None:
    readme = (result.parent / "README.md").read_text()
    for words in (
        "scp -r phone",
        "proot-distro",
        "pip install onnxruntime tokenizers numpy",
        f"{classifier.as_posix()}",
        "--import result.json",
    ):
        assert words in readme
    names = {path.relative_to(result.parent).as_posix() for path in result.parent.rglob("*") if path.is_file()}
    assert {"measure.py", "plan.json", "bundles/0-classifier/run.py", "bundles/1-generator/edgetune.json"} <= names
    with pytest.raises(RunError, match="is not empty"):
        kit.write(result.parent, [classifier], PLAN)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda tree: tree.update(schema="edgetune.benchmark/1"), "is of the kind edgetune.benchmark/1"),
        (lambda tree: tree["bundles"][0]["turns"][0][0]["latency"][0]["ms"].append(-1.0), "is damaged"),
        (lambda tree: tree["bundles"][0]["turns"].clear(), "is damaged"),
        (lambda tree: tree["machine"].pop("cpu"), "is damaged"),
        (lambda tree: tree["bundles"][0].update(edgetune_json="0" * 64), "is not the bundle that was measured"),
    ],
)
def test_what_is_refused(changed, classifier: Path, how: Callable[[Any], Any], says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        benchmark([classifier], result=changed(how))
    assert caught.value.exit_code == 2


def test_what_is_no_result(tmp_path: Path, classifier: Path) -> None:
    (tmp_path / "result.json").write_text("[")
    for name, says in (("result.json", "is not JSON"), ("none.json", "cannot read")):
        with pytest.raises(RequestError, match=says):
            benchmark([classifier], result=tmp_path / name)
    (tmp_path / "result.json").write_text("[]")
    with pytest.raises(RequestError, match="is of the kind None"):
        benchmark([classifier], result=tmp_path / "result.json")


def test_a_device_that_computes_something_else(changed, classifier: Path) -> None:
    def differ(tree: Any) -> None:
        tree["bundles"][0]["golden"] |= {"passed": False, "failures": [{"row": 7, "what": "other logits", "error": 0.5}]}

    with pytest.raises(GateError, match="golden vectors") as caught:
        benchmark([classifier], result=changed(differ))
    assert caught.value.details == ("row 7, what other logits, error 0.5",)


def test_a_device_that_hides_what_it_is(changed, classifier: Path) -> None:
    """Android shows neither its load nor how busy it is."""
    from edgetune.report.page import benchmark_html

    unknown = dict.fromkeys(("flags", "cores", "memory_bytes", "load_before", "load_after", "busy"))
    found = benchmark([classifier], result=changed(lambda tree: tree["machine"].update(unknown)))
    assert found["machine"]["isa"] == []
    assert found["machine"]["disturbed"] == (found["machine"]["spread"] > UNSTEADY), "what is unknown disturbs nothing"
    assert found["machine"]["cpu"] in benchmark_html(found)


def test_rows_are_not_scored_elsewhere(result: Path, classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="for this machine only"):
        benchmark([classifier], result=result, rows=tmp_path / "rows.jsonl")


def test_a_device_without_the_packages(classifier: Path, tmp_path: Path) -> None:
    kit.write(tmp_path / "kit", [classifier], PLAN)
    done = subprocess.run([sys.executable, "-I", "-S", tmp_path / "kit" / "measure.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install onnxruntime tokenizers numpy" in done.stderr
