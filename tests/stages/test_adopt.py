"""adopt: a checkpoint that was trained elsewhere becomes a run, with its own labels and its own tokenizer, or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification

from edgetune import pipeline, progress
from edgetune.errors import DataError, ModelError, RunError
from edgetune.graph import export as graphs
from edgetune.recipe import Recipe
from edgetune.stages.adopt import adopt

KEYS = {"export.schemes": ["fp32"], "export.targets": ["arm64"], "task": "text-classification"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "EXPORTERS", {"torchscript": graphs._torchscript})


def given(toy_run: Callable[[str], Any], model: Path, **changes: Any) -> tuple[Recipe, Any]:
    recipe = tiny.recipe(Path(toy_run("full").recipe.model).parent, model=str(model), method="none", **changes)
    return recipe, toy_run("full").dataset


@pytest.fixture
def checkpoint(toy_run: Callable[[str], Any], tmp_path: Path) -> Path:
    """As `save_pretrained` leaves it; its labels are in another order than the data's."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(toy_run("full").merged.path, folder)
    order = ["music", "door", "lights", "heat"]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        for weight in (model.classifier.weight, model.classifier.bias):
            weight.copy_(weight[[list(tiny.LABELS).index(label) for label in order]].clone())
    model.config.id2label, model.config.label2id = dict(enumerate(order)), {label: i for i, label in enumerate(order)}
    model.save_pretrained(folder)
    return folder


def test_a_checkpoint_keeps_its_labels_in_their_order(toy_run: Callable[[str], Any], checkpoint: Path, out: Path) -> None:
    facts = adopt(*given(toy_run, checkpoint), out)
    assert facts["labels"] == ["music", "door", "lights", "heat"]
    assert json.loads((out / "config.json").read_text("utf-8"))["id2label"]["0"] == "music"
    assert facts["test"] == pytest.approx(toy_run("full").adapted.facts["test"]), "the same answers under the same names"
    assert facts["max_length"] == 64


def test_half_precision_becomes_float32(toy_run: Callable[[str], Any], checkpoint: Path, out: Path) -> None:
    AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float16).save_pretrained(checkpoint)
    adopt(*given(toy_run, checkpoint), out)
    from safetensors.torch import load_file

    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.float32}


def renamed(folder: Path, labels: list[str]) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["id2label"] = {str(i): label for i, label in enumerate(labels)}
    config["label2id"] = {label: i for i, label in enumerate(labels)}
    (folder / "config.json").write_text(json.dumps(config))


def test_labels_that_the_checkpoint_does_not_know(toy_run: Callable[[str], Any], checkpoint: Path, out: Path) -> None:
    renamed(checkpoint, ["joy", "door", "anger", "heat"])
    with pytest.raises(DataError, match="2 labels of the data are unknown to the checkpoint: lights, music") as raised:
        adopt(*given(toy_run, checkpoint), out)
    assert raised.value.details == ("the checkpoint knows: joy, door, anger, heat",)
    assert raised.value.exit_code == 2


def test_numbered_labels_take_the_datas_names_and_say_so(toy_run: Callable[[str], Any], out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "numbered"
    shutil.copytree(toy_run("full").merged.path, folder)
    renamed(folder, [f"LABEL_{i}" for i in range(4)])
    with progress.collecting() as notes:
        facts = adopt(*given(toy_run, folder), out)
    assert facts["labels"] == sorted(tiny.LABELS)
    assert any("does not name its labels" in note for note in notes)
    assert json.loads((out / "config.json").read_text("utf-8"))["id2label"]["3"] == sorted(tiny.LABELS)[3]
    assert facts["test"] == pytest.approx(toy_run("full").adapted.facts["test"])


def test_but_not_when_their_number_differs(toy_run: Callable[[str], Any], out: Path, tmp_path: Path) -> None:
    folder = tiny.classifier(tmp_path / "five", tuple(f"LABEL_{i}" for i in range(5)))
    with pytest.raises(DataError, match="4 labels of the data are unknown"):
        adopt(*given(toy_run, folder), out)


def test_a_base_without_a_head_is_not_exported_with_a_random_one(toy_run: Callable[[str], Any], out: Path, tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "base")
    renamed(folder, list(tiny.LABELS))
    with pytest.raises(
        ModelError, match=r"was not trained for text-classification: it lacks classifier\.bias, classifier\.weight"
    ) as raised:
        adopt(*given(toy_run, folder), out)
    assert f"edgetune adapt --model {folder}" in str(raised.value.mend)


@pytest.mark.parametrize(
    ("lost", "said"), [("tokenizer.json", "has no tokenizer"), ("model.safetensors", "has no weights"), ("config.json", "no config.json")]
)
def test_an_incomplete_checkpoint(toy_run: Callable[[str], Any], checkpoint: Path, out: Path, lost: str, said: str) -> None:
    (checkpoint / lost).unlink()
    with pytest.raises(ModelError, match=said):
        adopt(*given(toy_run, checkpoint), out)


def test_weights_that_lost_their_end(toy_run: Callable[[str], Any], checkpoint: Path, out: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cannot load"):
        adopt(*given(toy_run, checkpoint), out)


@pytest.fixture
def adapter(toy_run: Callable[[str], Any], tmp_path: Path) -> Path:
    """As peft leaves it beside a Trainer: adapter, head and tokenizer."""
    folder = tmp_path / "adapter"
    shutil.copytree(toy_run("lora").adapted.path, folder)
    tiny.tokenizer(folder)
    return folder


@pytest.mark.parametrize("tokenizer", [True, False])
def test_a_peft_adapter_is_folded_into_its_base(toy_run: Callable[[str], Any], adapter: Path, out: Path, tokenizer: bool) -> None:
    """Its labels have no names; its tokenizer is its own, or that of the base."""
    if not tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (adapter / name).unlink()
    assert not (adapter / "config.json").exists()
    facts = adopt(*given(toy_run, adapter), out)
    assert facts["labels"] == sorted(tiny.LABELS)
    assert facts["test"] == pytest.approx(toy_run("lora").adapted.facts["test"], abs=1e-4)
    assert facts["base_model"] == toy_run("lora").recipe.model
    assert (out / "tokenizer.json").is_file()


def test_a_config_beside_the_adapter_names_its_labels(toy_run: Callable[[str], Any], adapter: Path, out: Path) -> None:
    shutil.copyfile(toy_run("lora").merged.path / "config.json", adapter / "config.json")
    with progress.collecting() as notes:
        facts = adopt(*given(toy_run, adapter), out)
    assert facts["labels"] == list(tiny.LABELS)
    assert not any("does not name its labels" in note for note in notes)


@pytest.mark.parametrize(("change", "said"), [("base", "does not name its base model"), ("weights", r"has no adapter_model\.safetensors")])
def test_an_incomplete_adapter(toy_run: Callable[[str], Any], adapter: Path, out: Path, change: str, said: str) -> None:
    if change == "weights":
        (adapter / "adapter_model.safetensors").unlink()
    else:
        config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(ModelError, match=said):
        adopt(*given(toy_run, adapter), out)


def test_export_of_a_checkpoint(toy_run: Callable[[str], Any], checkpoint: Path, tmp_path: Path) -> None:
    """Twice the same is done once; another content under the same name is another checkpoint."""
    keys = {**KEYS, "data.path": toy_run("full").recipe.data.path, "output": str(tmp_path / "run")}

    def exported() -> dict[str, Any]:
        assert pipeline.export(checkpoint, keys) == tmp_path / "run"
        report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
        assert report["export"]["arm64"]["baseline"] == pytest.approx(report["merge"]["test"]["accuracy"])
        return report

    first = exported()
    assert json.loads((tmp_path / "run" / "bundles" / "arm64" / "edgetune.json").read_text("utf-8"))["labels"][0] == "music"
    assert exported()["merge"] == first["merge"]
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(checkpoint)
    assert exported()["merge"]["test"] != first["merge"]["test"]


def test_export_of_an_adapter_and_again_of_its_run(toy_run: Callable[[str], Any], adapter: Path, tmp_path: Path) -> None:
    keys = {**KEYS, "data.path": toy_run("full").recipe.data.path, "output": str(tmp_path / "run")}
    pipeline.export(adapter, keys)
    pipeline.export(tmp_path / "run", {"export.reject_below": 0.5})
    bundle = json.loads((tmp_path / "run" / "bundles" / "arm64" / "edgetune.json").read_text("utf-8"))
    assert bundle["confidence"]["reject_below"] == 0.5
    assert pipeline.merge(tmp_path / "run") == tmp_path / "run"
    with pytest.raises(RunError, match="another training recipe"):
        pipeline.export(adapter, {**keys, "seed": 3})
