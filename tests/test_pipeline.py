"""The fold over the stages: each is done once, again when what it depends on changed, and what cannot work is refused first."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import pipeline
from edgetune.artifact import folder_digest
from edgetune.errors import EdgetuneError, RecipeError, RequestError, RunError, TargetError
from edgetune.graph import export as graphs
from edgetune.recipe import Recipe

TARGETS = ["x86_64", "arm64"]
HERE = Path()  # recipes name what they need relative to where they are
KEYS: dict[str, Any] = {"export__targets": TARGETS, "adapt__baselines": True}


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Any:
    """The exporter that traces in a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "EXPORTERS", {"torchscript": graphs._torchscript})
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, data with rows out of scope, and a run of it up to the bundles."""
    folder = tiny.problem(tmp_path_factory.mktemp("pipeline"), outside=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pipeline.run(tiny.recipe(HERE, **KEYS), "export")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a copy of all that, to change; returns its run."""
    shutil.copytree(made, tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    return Path("run")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that are really done from here on, in their order."""
    from edgetune.workspace import Workspace

    names: list[str] = []
    original = Workspace.stage

    def stage(self: Workspace, name: str, kind: Any, folder: str, make: Callable[[Path], Any], **options: Any) -> Any:
        def counted(out: Path) -> Any:
            names.append(name)
            return make(out)

        return original(self, name, kind, folder, counted, **options)

    monkeypatch.setattr(Workspace, "stage", stage)
    return names


def report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text("utf-8"))


EXPORTS = [f"export:{name}" for name in TARGETS]


def test_the_report_has_the_keys_that_others_read(made: Path) -> None:
    found = report(made / "run")
    assert {"accuracy", "macro_f1", "worst_recall", "log_loss"} <= set(found["adapt"]["test"])
    assert found["adapt"]["test"]["accuracy"] > 0.8, "the toy problem is learned"
    assert found["adapt"]["seconds"] > 0
    assert found["adapt"]["peak_rss_bytes"] > 10e6
    for name in TARGETS:
        export = found["export"][name]
        assert {"scheme", "size_bytes", "quality", "baseline", "drop", "candidates"} <= set(export)
        assert export["drop"] == pytest.approx(export["baseline"] - export["quality"])
        assert export["baseline"] == pytest.approx(found["adapt"]["test"]["accuracy"]), "the adapted float model, on test"
        graph = next((made / "run" / "bundles" / name).glob("onnx/*.onnx"))
        assert export["size_bytes"] == graph.stat().st_size
        assert [c["scheme"] for c in export["candidates"] if c["passed"]] == [export["scheme"]]
    assert {"untrained", "frozen_logistic_regression", "zero_shot"} == set(found["adapt"]["baselines"])
    assert found["adapt"]["baselines"]["untrained"]["accuracy"] < found["adapt"]["test"]["accuracy"]
    assert {"temperature", "reject_below", "test"} <= set(found["adapt"]["confidence"])
    assert found["adapt"]["confidence"]["test"]["out_of_scope_auroc"] > 0.5
    assert {row["label"] for row in found["adapt"]["per_label"]} == set(tiny.LABELS)


def test_labels_keep_their_order_into_the_app(made: Path) -> None:
    run = made / "run"
    assert report(run)["prepare"]["labels"] == list(tiny.LABELS)
    expected = {str(i): label for i, label in enumerate(tiny.LABELS)}
    for config in (run / "checkpoint", run / "merged", *(run / "bundles").iterdir()):
        found = json.loads((config / "config.json").read_text("utf-8"))
        assert found["id2label"] == expected
        assert found["label2id"] == {label: i for i, label in enumerate(tiny.LABELS)}
    from edgetune.runtime.process import run as run_py

    for label, words in tiny.WORDS.items():
        said = run_py(run / "bundles" / "x86_64", ["--json", " ".join(words)])
        assert f'"{label}"' in json.dumps(said.found), said


def test_targets_share_what_they_can(made: Path) -> None:
    kept = {path.name.partition("-")[2] for path in (made / "run" / ".work" / "candidates").glob("*/*")}
    assert {"fp32", "int8-dynamic-per-channel"} <= kept
    assert sum(name.startswith("int8-dynamic-per-channel-") for name in kept) == 1, "with 7-bit weights"
    assert len(list((made / "run" / "graph").iterdir())) == 1


def test_nothing_is_done_twice(here: Path, done: list[str]) -> None:
    before = folder_digest(here)
    pipeline.run(tiny.recipe(HERE, **KEYS), "export")
    assert not done
    assert folder_digest(here) == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"export__max_drop": 0.2, "export__golden": "validation"}, EXPORTS),
        ({"export__targets": TARGETS[:1]}, []),
        ({"data__licence": "CC0-1.0", "export__targets": TARGETS[1:]}, EXPORTS[1:]),
        ({"export__schemes": ["fp32"], "export__targets": TARGETS[1:]}, EXPORTS[1:]),
    ],
)
def test_changed_export_keys_repeat_the_export_alone(here: Path, done: list[str], changes: dict[str, Any], expected: list[str]) -> None:
    pipeline.run(tiny.recipe(HERE, **{**KEYS, **changes}), "export")
    assert done == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed: 0 in the run, 1 asked"),
        ({"adapt__epochs": 9}, "adapt.epochs: 4 in the run, 9 asked"),
        ({"method": "head"}, "method: 'full' in the run, 'head' asked"),
        ({"lora__rank": 3}, "lora.rank: 16 in the run, 3 asked"),
        ({"data__text": "text"}, "data.text: '' in the run, 'text' asked"),
    ],
)
def test_other_training_keys_are_refused_by_name(here: Path, changes: dict[str, Any], said: str) -> None:
    before = folder_digest(here)
    with pytest.raises(RunError, match="another training recipe") as raised:
        pipeline.run(tiny.recipe(HERE, **{**KEYS, **changes}), "export")
    assert raised.value.details == (said,)
    assert raised.value.exit_code == 2
    assert folder_digest(here) == before, "nothing was lost"


def test_other_data_begin_from_the_start(here: Path, done: list[str]) -> None:
    tiny.table(Path("data.csv"), tiny.sentences(240, seed=1, outside=40))
    pipeline.run(tiny.recipe(HERE, **KEYS), "merge")
    assert done == ["prepare", "adapt", "merge"]


def test_other_weights_of_the_same_name_are_trained_anew(here: Path, done: list[str]) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = Path("model/model.safetensors")
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    save_file({**weights, name: weights[name] + 0.01 * torch.ones_like(weights[name])}, path, metadata={"format": "pt"})
    pipeline.run(tiny.recipe(HERE, **KEYS), "merge")
    assert done == ["adapt", "merge"]


@pytest.mark.parametrize(
    ("damaged", "expected"),
    [
        ("data/validation.jsonl", ["prepare"]),
        ("checkpoint/model.safetensors", ["adapt"]),
        ("merged/model.safetensors", ["merge"]),
        ("graph/opset20-ir10/model.onnx", ["graph:opset20-ir10"]),
        ("bundles/arm64/golden.jsonl", ["export:arm64"]),
    ],
)
def test_a_damaged_output_is_made_again_and_what_follows_is_not(here: Path, done: list[str], damaged: str, expected: list[str]) -> None:
    path = here / damaged
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    pipeline.run(tiny.recipe(HERE, **KEYS), "export")
    assert done == expected
    if not damaged.startswith("bundles"):
        assert path.read_bytes() == content


def test_merge_and_export_of_a_run(here: Path, done: list[str]) -> None:
    assert pipeline.merge(here) == here
    assert not done
    pipeline.export(here, {"export.targets": ["arm64"], "export.max_drop": 0.3})
    assert done == ["export:arm64"]
    assert json.loads((here / "manifest.json").read_text())["stages"]["export:arm64"]["facts"]["scheme"]


def test_export_of_a_run_that_was_only_adapted(made: Path, tmp_path: Path, done: list[str]) -> None:
    recipe = tiny.recipe(made, output=str(tmp_path / "run"), adapt__epochs=1, export__targets=[])
    pipeline.run(recipe, "adapt")
    assert not (tmp_path / "run" / "merged").exists()
    pipeline.export(tmp_path / "run", {"export.targets": ["arm64"], "export.schemes": ["fp32"]})
    assert done == ["prepare", "adapt", "merge", "graph:opset20-ir10", "export:arm64"]


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"task": "text-clasification"}, RecipeError, 'unknown task "text-clasification" (did you mean "text-classification"?)'),
        ({"method": "ful"}, RecipeError, 'unknown method "ful" (did you mean "full"?)'),
        ({"task": "text-generation", "method": "head"}, RecipeError, "method head does not fit text-generation"),
        ({"task": "relation-extraction", "method": "few-shot"}, RecipeError, "method few-shot does not fit relation-extraction"),
        (
            {"task": "token-classification", "data__shots": 4},
            RecipeError,
            "data.shots = 4, but a row of token-classification has no one label",
        ),
        ({"export__targets": []}, RecipeError, "no target given"),
        ({"export__targets": ["arm46"]}, TargetError, 'unknown target "arm46" (did you mean "arm64"?)'),
        ({"export__targets": ["arm64", "arm64"]}, RecipeError, "target arm64 is given twice"),
        ({"model": "", "data__path": ""}, RecipeError, "the recipe lacks model, data.path"),
        ({"output": ""}, RecipeError, "the recipe lacks output"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], kind: type[EdgetuneError], said: str
) -> None:
    with pytest.raises(kind) as raised:
        pipeline.run(tiny.recipe(tmp_path, **{"output": str(tmp_path / "run"), **changes}), "export")
    assert said in str(raised.value)
    assert raised.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_methods_and_schemes_are_for_a_family() -> None:
    recipe = Recipe(task="text-generation", method="head", model="m", output="o", data={"path": "d"})
    with pytest.raises(RecipeError) as raised:
        pipeline.run(recipe)
    assert raised.value.mend is not None and "lora" in raised.value.mend and "head" not in raised.value.mend
    with pytest.raises(RunError, match="is neither a run directory nor a checkpoint"):
        pipeline.export(Path("nowhere"), {})


FIXED = """
extends = "arm64"
title   = "An accelerator of fixed shapes"

[runtime]
shapes   = "static"
sequence = 12
ids      = "int32"

[quantization]
encoder = ["int8-dynamic-per-channel", "fp32"]
decoder = []
"""


def test_a_target_with_inputs_of_its_own_shares_the_trace(here: Path, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.runtime.process import run as run_py

    Path("fixed.toml").write_text(FIXED)
    pipeline.export(here, {"export.targets": ["arm64", "fixed.toml"], "export.max_drop": 0.3})
    assert [name for name in done if name.startswith("graph")] == ["graph:opset20-ir10-int32-1x12"]
    done.clear()
    Path("other.toml").write_text(FIXED.replace("An accelerator", "Another one"))
    pipeline.export(here, {"export.targets": ["fixed.toml", "other.toml"], "export.max_drop": 0.3})
    assert [name for name in done if name.startswith("graph")] == []
    bundle = here / "bundles" / "fixed"
    facts = json.loads((bundle / "edgetune.json").read_text())
    assert [(item["dtype"], item["shape"]) for item in facts["inputs"]] == [("int32", [1, 12])] * 2
    assert facts["max_length"] == 12
    found = run_py(bundle, ["--golden"]).found
    assert found is not None and found["passed"] is True


def test_an_accelerator_that_is_not_here_is_checked_on_the_cpu_and_not_measured(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipeline.run(tiny.recipe(HERE, **KEYS | {"export__targets": ["cuda"], "export__schemes": ["fp16"], "export__max_drop": 0.3}))
    assert "cuda: CUDAExecutionProvider is not here; the golden vectors are checked on CPUExecutionProvider" in caplog.messages
    assert "cuda is not measured: this machine has no CUDAExecutionProvider" in caplog.messages
    found = report(here)["export"]["cuda"]
    assert found["golden"]["golden"]["provider"] == "CPUExecutionProvider"
    facts = json.loads((here / "bundles" / "cuda" / "edgetune.json").read_text())
    assert (facts["provider"], facts["session"]["threads"]) == ("CUDAExecutionProvider", 1)


def test_verify_of_an_accelerator_that_is_not_here_is_a_wrong_request(here: Path) -> None:
    from edgetune.runtime.verify import verify

    Path("mine.toml").write_text('extends = "cuda"\n')
    pipeline.export(here, {"export.targets": ["mine.toml"], "export.schemes": ["fp32"]})
    bundle = here / "bundles" / "mine"
    assert verify(bundle, provider="CPUExecutionProvider")["passed"] is True
    with pytest.raises(RequestError) as raised:
        verify(bundle)
    assert "pip install onnxruntime-gpu" in raised.value.details[-1]


def test_a_family_that_a_target_does_not_run_is_refused_first(here: Path) -> None:
    Path("generators.toml").write_text('extends = "arm64"\n[quantization]\nencoder = []\n')
    with pytest.raises(RecipeError, match="target generators does not run text-classification"):
        pipeline.export(here, {"export.targets": ["generators.toml"]})
