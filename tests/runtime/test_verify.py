"""verify: what was changed is found, and run.py runs with nothing but what a device has."""

import json
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgetune.artifact import file_digest
from edgetune.errors import GateError, RequestError
from edgetune.runtime.process import run
from edgetune.runtime.verify import verify


@pytest.fixture
def copy(classifier, tmp_path) -> Path:
    return Path(shutil.copytree(classifier, tmp_path / "bundle"))


def sign(bundle: Path, **facts) -> None:
    """Enter the files as they are now into edgetune.json."""
    path = bundle / "edgetune.json"
    digests = {p.relative_to(bundle).as_posix(): file_digest(p) for p in bundle.rglob("*") if p.is_file() and p != path}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sha256": digests} | facts))


def test_a_bundle_verifies(classifier, generator):
    for bundle in (classifier, generator):
        found = verify(bundle)
        assert found["passed"] is True
        assert found["golden"]["rows"] >= 100
        assert found["opset"] == 20
        assert found["ir"] == 10
        json.dumps(found)


def test_a_flipped_byte_in_any_file_is_found(copy):
    names = sorted(p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file() and p.name != "edgetune.json")
    assert {"onnx/model.onnx", "tokenizer.json", "golden.jsonl", "run.py", "README.md", "config.json", "LICENSES/LICENSE"} <= set(names)
    for name in names:
        whole = (copy / name).read_bytes()
        middle = len(whole) // 2
        (copy / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        with pytest.raises(GateError) as caught:
            verify(copy)
        assert caught.value.details == (f"changed: {name}",)
        assert caught.value.exit_code == 4
        (copy / name).write_bytes(whole)
    verify(copy)


def test_missing_and_extra_files_are_found(copy):
    (copy / "config.json").unlink()
    (copy / "onnx" / "extra.bin").write_text("?")
    with pytest.raises(GateError, match="2 files differ") as caught:
        verify(copy)
    assert caught.value.details == ("missing: config.json", "not in edgetune.json: onnx/extra.bin")


def test_a_changed_golden_line_fails_even_when_it_is_signed(copy):
    rows = [json.loads(line) for line in (copy / "golden.jsonl").read_text().splitlines()]
    rows[50]["logits"][2] += 1.0
    (copy / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sign(copy)
    with pytest.raises(GateError, match="1 of 110 golden vectors") as caught:
        verify(copy)
    assert "row 51" in caught.value.details[0]


def test_a_swapped_tokenizer_fails_even_when_it_is_signed(copy):
    path = copy / "tokenizer.json"
    words = json.loads(path.read_text())
    words["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(words))
    sign(copy)
    with pytest.raises(GateError, match="golden vectors") as caught:
        verify(copy)
    assert "other token ids" in caught.value.details[0]


def test_another_graph_fails_even_when_it_is_signed(copy):
    import onnx
    from onnx import numpy_helper

    path = copy / "onnx" / "model.onnx"
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.01, weight.name))
    onnx.save(model, path)
    sign(copy)
    with pytest.raises(GateError, match="golden vectors"):
        verify(copy)


def test_a_graph_that_its_target_cannot_load_fails(copy):
    import onnx

    path = copy / "onnx" / "model.onnx"
    model = onnx.load(path)
    model.ir_version = 11
    onnx.save(model, path)
    sign(copy)
    with pytest.raises(GateError, match="does not fit its target") as caught:
        verify(copy)
    assert caught.value.details == ("ir 11, edgetune.json says 10", "IR 11, x86_64 takes 10")
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    sign(copy, ir=11, target="my-own")
    with pytest.raises(GateError, match="does not hold all of its weights"):
        verify(copy)
    path.write_bytes(b"no graph")
    (copy / "onnx" / "weights.bin").unlink()
    sign(copy)
    with pytest.raises(GateError, match="is not a valid ONNX graph"):
        verify(copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "C:\\x", "..\\x", "\\\\host\\share"])
def test_paths_out_of_the_folder_are_refused_before_anything_is_read(copy, name):
    path = copy / "edgetune.json"
    facts = json.loads(path.read_text())
    for changed in ({"model": name}, {"sha256": facts["sha256"] | {name: "0"}}):
        path.write_text(json.dumps(facts | changed))
        with pytest.raises(RequestError, match="outside of the folder") as caught:
            verify(copy)
        assert caught.value.exit_code == 2


def test_what_is_no_bundle_is_a_wrong_request(tmp_path, copy):
    with pytest.raises(RequestError, match="is not an edgetune bundle"):
        verify(tmp_path)
    (copy / "edgetune.json").write_text('{"schema": "edgetune.bundle/1", "onnxruntime_min": "1.20"}')
    with pytest.raises(RequestError, match="is not complete"):
        verify(copy)
    (copy / "edgetune.json").write_text("[")
    with pytest.raises(RequestError, match="is damaged"):
        verify(copy)


@pytest.mark.parametrize("module", ["torch", "transformers", "onnx", "scipy", "huggingface_hub", "edgetune", "pip", "yaml"])
def test_the_process_cannot_import_anything_else(copy, module):
    assert subprocess.run([sys.executable, "-c", f"import {module}"], check=False).returncode == 0, "not installed: proves nothing"
    (copy / "run.py").write_text(f"import {module}\nprint('{{\"passed\": true}}')\n")
    sign(copy)
    with pytest.raises(GateError) as caught:
        verify(copy)
    assert f"No module named '{module}'" in caught.value.details[-1]


def test_the_process_can_import_what_a_device_has_and_nothing_from_the_bundle(copy):
    (copy / "numpy.py").write_text("raise SystemExit('shadowed')\n")
    (copy / "run.py").write_text("import sqlite3, xml.dom, numpy, onnxruntime, tokenizers\nprint('{\"passed\": true}')\n")
    assert run(copy, []).found == {"passed": True}


@pytest.mark.slow
def test_run_py_in_an_environment_with_only_three_packages(classifier, generator, tmp_path):
    """What a user of the bundle does: a fresh environment with onnxruntime, tokenizers and numpy, without their dependencies."""
    python = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    wanted = [f"{name}=={metadata.version(name)}" for name in ("onnxruntime", "tokenizers", "numpy")]
    done = subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(wanted)} here: {done.stderr.strip().splitlines()[-1]}")
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True).stdout
    assert {entry["name"] for entry in json.loads(listed)} - {"pip", "setuptools"} == {"onnxruntime", "tokenizers", "numpy"}
    for bundle in (classifier, generator):
        moved = shutil.copytree(bundle, tmp_path / f"moved {bundle.name}")
        for arguments in (["--golden"], ["some text", "--json"], ["--benchmark", "--runs", "3"]):
            done = subprocess.run([python, moved / "run.py", *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)
        verify(moved)  # nothing was written into the folder


def test_what_python_leaves_behind_is_no_change(copy):
    """An app that writes `from run import Bundle` gets a __pycache__ there; anything else in that folder is a stranger."""
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"")
    (copy / "answers" / "__pycache__").mkdir()
    (copy / "answers" / "__pycache__" / "probability.cpython-311.pyc").write_bytes(b"")
    verify(copy)
    (copy / "__pycache__" / "numpy.cpython-311.pyc").write_bytes(b"")
    with pytest.raises(GateError, match="not as it was written"):
        verify(copy)
