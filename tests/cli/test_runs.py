"""adapt, merge, export and run: what they ask the pipeline for, and what they show of its report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgetune.errors import GateError, RunError

REPORT: dict[str, Any] = {
    "adapt": {
        "test": {"accuracy": 0.9213, "macro_f1": 0.9207},
        "validation": {"accuracy": 0.93, "macro_f1": 0.93},
        "baselines": {"untrained": {"accuracy": 0.0131, "macro_f1": 0.001}, "frozen_logistic_regression": {"accuracy": 0.8004, "macro_f1": 0.79}},
        "seconds": 312.4,
        "peak_rss_bytes": 1_200_000_000,
        "device": "cpu",
        "precision": "bf16",
    },
    "merge": {"max_logit_difference": 1e-5, "label_flips": 0, "rows": 128},
    "export": {
        "arm64": {
            "scheme": "int8-dynamic",
            "size_bytes": 23_300_000,
            "quality": 0.9182,
            "baseline": 0.9213,
            "drop": 0.0031,
            "candidates": [
                {"scheme": "fp32", "size_bytes": 90_000_000, "quality": 0.93, "drop": 0.0, "bound": 0.0, "passed": False, "reason": "the float graph"},
                {"scheme": "int8-dynamic", "size_bytes": 23_300_000, "quality": 0.928, "drop": 0.002, "bound": 0.006, "passed": True, "reason": "proven"},
            ],
        },
        "x86_64": {"scheme": "fp32", "size_bytes": 90_000_000, "quality": 0.9213, "baseline": 0.9213, "drop": 0.0, "candidates": []},
    },
    "benchmark": {
        "schema": "edgetune.benchmark/1",
        "machine": {"cpu": "Some CPU", "architecture": "x86_64", "os": "Linux 6", "disturbed": True},
        "bundles": [
            {
                "path": "b",
                "target": "arm64",
                "scheme": "int8-dynamic",
                "size_bytes": 23_300_000,
                "load_ms": 80.2,
                "peak_rss_bytes": 90_000_000,
                "provider": "CPUExecutionProvider",
                "threads": 1,
                "quality": {"metric": "accuracy", "value": 0.9182, "baseline": 0.9213, "n": 219, "ci95": [0.9, 0.93]},
                "latency": [
                    {"batch": 1, "sequence": 12, "lengths": "real", "p50_ms": 1.71, "p95_ms": 2.0, "p99_ms": 2.5, "runs": 300, "ci95_ms": [1.69, 1.74]},
                    {"batch": 1, "sequence": 128, "lengths": "fixed", "p50_ms": 9.5, "p95_ms": 10.0, "p99_ms": 11.5, "runs": 300, "ci95_ms": [9.4, 9.6]},
                ],
                "note": "measured on this x86_64 machine, not on arm64",
            }
        ],
    },
}  # fmt: skip


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for target in REPORT["export"]:
        (folder / "bundles" / target).mkdir(parents=True)
        (folder / "bundles" / target / "edgetune.json").write_text("{}")
    (folder / "recipe.toml").write_text('[export]\ntargets = ["arm64", "x86_64"]\n')
    (folder / "report.json").write_text(json.dumps(REPORT))
    return folder


@pytest.fixture
def pipeline(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The pipeline's functions, which do nothing but remember what they were asked."""
    from edgetune import pipeline as real

    seen: dict[str, Any] = {}

    def remember(name: str) -> Any:
        def call(first: Any, second: Any = None) -> Path:
            seen.update({"call": name, "first": first, "second": second})
            return run_folder

        return call

    for name in ("run", "merge", "export"):
        monkeypatch.setattr(real, name, remember(name))
    return seen


def test_adapt_ends_with_a_table_and_the_next_command(edgetune, pipeline, run_folder: Path) -> None:
    answer = edgetune("adapt", "--model", "./m")
    assert answer.code == 0
    assert pipeline["second"] == "adapt"
    for text in ("accuracy", "0.9213", "untrained", "0.0131", "frozen logistic regression", "0.8004", "5 min 12 s", "1.2 GB", "bf16"):
        assert text in answer.out
    assert f"next:  edgetune export {run_folder} --target " in answer.err
    assert edgetune("adapt", "-q").out == f"{run_folder}\n"
    assert edgetune("adapt", "--json").json == {"run": str(run_folder), **REPORT["adapt"]}


SEARCH = {
    "metric": "accuracy",
    "keys": ["adapt.learning_rate", "lora.rank"],
    "trials": [
        {"trial": 0, "settings": {"adapt.learning_rate": 2e-4, "lora.rank": 16}, "state": "done", "epochs": [0.7, 0.9], "value": 0.9, "length": 2},
        {"trial": 1, "settings": {"adapt.learning_rate": 8.67e-5, "lora.rank": 32}, "state": "done", "epochs": [0.8, 0.9312], "value": 0.9312, "length": 3},
        {"trial": 2, "settings": {"adapt.learning_rate": 1e-3, "lora.rank": 8}, "state": "given up", "epochs": [0.1], "value": 0.1, "length": 4},
        {"trial": 3, "settings": {"adapt.learning_rate": 1e-2, "lora.rank": 8}, "state": "diverged", "epochs": [], "value": None, "length": 4},
    ],
    "kept": 1,
    "test_of_defaults": {"accuracy": 0.9187},
}  # fmt: skip


def test_adapt_shows_every_trial_and_why_a_method_was_chosen(edgetune, pipeline, run_folder: Path) -> None:
    auto = {"method": "lora", "why": "10,003 rows: an adapter", "passed": {}}
    (run_folder / "report.json").write_text(json.dumps({**REPORT, "auto": auto, "adapt": {**REPORT["adapt"], "search": SEARCH}}))
    answer = edgetune("adapt", "--search", "4", "--method", "auto")
    assert (pipeline["first"].search.trials, pipeline["first"].method) == (4, "auto")
    lines = [" ".join(line.split()) for line in answer.out.splitlines()]
    for line in (
        "method: lora (auto: 10,003 rows: an adapter)",
        "1 0.0002 16 0.9000 2 of 2 done (the defaults)",
        "> 2 8.67e-05 32 0.9312 2 of 3 done",
        "3 0.001 8 0.1000 1 of 4 given up",
        "4 0.01 8 - 0 of 4 diverged",
        "test accuracy: 0.9213 with trial 2, 0.9187 with the defaults",
    ):
        assert line in lines
    assert edgetune("adapt", "--json").json["auto"] == auto
    kept = {**SEARCH, "kept": 0, "test_of_defaults": None}
    (run_folder / "report.json").write_text(json.dumps({**REPORT, "adapt": {**REPORT["adapt"], "search": kept}}))
    assert "nothing beats the defaults: they are kept" in edgetune("adapt").out


def test_merge(edgetune, pipeline, run_folder: Path) -> None:
    answer = edgetune("merge", run_folder, "--json")
    assert pipeline == {"call": "merge", "first": run_folder, "second": None}
    assert answer.json == {"run": str(run_folder), **REPORT["merge"]}
    assert f"model: {run_folder / 'merged'}" in edgetune("merge", run_folder).out


def test_export_shows_every_candidate_and_which_was_chosen(edgetune, pipeline, run_folder: Path) -> None:
    answer = edgetune(
        "export", run_folder, "--target", "arm64", "--max-drop", "0.02", "--strict", "--reject-below", "0.5", "--max-size", "24"
    )
    assert answer.code == 0, answer.err
    assert pipeline["second"] == {
        "export.targets": "arm64",
        "export.max_drop": "0.02",
        "export.strict": True,
        "export.reject_below": "0.5",
        "export.max_size_mb": "24",
    }
    assert "> int8-dynamic" in answer.out
    assert "> fp32" not in answer.out
    for text in ("23.3 MB", "90.0 MB", "0.0031", "proven", "the float graph", f"bundle: {run_folder / 'bundles' / 'arm64'}"):
        assert text in answer.out
    assert f"bundle: {run_folder / 'bundles' / 'x86_64'}" not in answer.out, "only what was asked for"
    assert "edgetune benchmark" in answer.err
    assert "edgetune predict" in answer.err


def test_export_uses_the_targets_of_the_run(edgetune, pipeline, run_folder: Path) -> None:
    answer = edgetune("export", run_folder, "-q")
    assert pipeline["second"] == {}
    assert answer.out.splitlines() == [str(run_folder / "bundles" / name) for name in ("arm64", "x86_64")]


def test_export_copies_the_bundles_of_a_run_to_output(edgetune, pipeline, run_folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "app"
    for _ in range(2):
        answer = edgetune("export", run_folder, "--target", "arm64", "--output", place, "-q")
        assert answer.code == 0, answer.err
        assert answer.out == f"{place / 'arm64'}\n"
        assert (place / "arm64" / "edgetune.json").is_file()
    assert "output" not in pipeline["second"]
    (place / "arm64" / "edgetune.json").unlink()
    (place / "arm64" / "precious").touch()
    refused = edgetune("export", run_folder, "--target", "arm64", "--output", place)
    assert refused.code == 2
    assert (place / "arm64" / "precious").exists()


def test_export_of_a_checkpoint_passes_task_data_and_output_on(edgetune, pipeline, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    answer = edgetune(
        "export", checkpoint, "--task", "text-classification", "--data", "d.csv", "--target", "arm64", "--target", "x86_64", "--output", "o"
    )
    assert answer.code == 0, answer.err
    assert pipeline["first"] == checkpoint
    assert pipeline["second"] == {"task": "text-classification", "data.path": "d.csv", "export.targets": "arm64,x86_64", "output": "o"}


def test_export_of_nothing_and_to_nothing(edgetune, pipeline, run_folder: Path, tmp_path: Path) -> None:
    nothing = edgetune("export", tmp_path / "nothing", "--target", "arm64")
    assert nothing.code == 2
    assert "there is no run or checkpoint" in nothing.err
    (run_folder / "recipe.toml").write_text("")
    to_nothing = edgetune("export", run_folder)
    assert to_nothing.code == 2
    assert "no target given" in to_nothing.err
    assert "--target" in to_nothing.err
    assert pipeline == {}


def test_run_shows_all_of_it(edgetune, pipeline, run_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("seed = 3\n")
    answer = edgetune("run", file)
    assert pipeline["second"] == "benchmark"
    assert pipeline["first"].seed == 3
    for text in (
        "0.9213",
        "> int8-dynamic",
        "1.71",
        "1.69 .. 1.74",
        "1 x 12 (real)",
        "Some CPU",
        "the machine was disturbed",
        "not on arm64",
        "report.html",
    ):
        assert text in answer.out
    assert edgetune("run", file, "--json").json == {"run": str(run_folder), **REPORT}


def test_run_without_a_recipe(edgetune, tmp_path: Path) -> None:
    answer = edgetune("run", tmp_path / "none.toml")
    assert answer.code == 2
    assert "no recipe at" in answer.err
    assert "edgetune init" in answer.err


@pytest.mark.parametrize(
    ("error", "code"), [(GateError("no candidate keeps its promise", details=["int8: 0.05"]), 4), (RunError("other recipe"), 2)]
)
def test_what_the_pipeline_refuses(edgetune, monkeypatch: pytest.MonkeyPatch, run_folder: Path, error: Exception, code: int) -> None:
    from edgetune import pipeline

    def refuse(*_: Any) -> Path:
        raise error

    monkeypatch.setattr(pipeline, "export", refuse)
    answer = edgetune("export", run_folder, "--target", "arm64", "--json")
    assert answer.code == code
    assert answer.out == ""
    assert answer.err.startswith(f"error: {error}")


def test_notes_of_a_stage_are_shown_and_kept_out_of_json(edgetune, monkeypatch: pytest.MonkeyPatch, run_folder: Path) -> None:
    from edgetune import pipeline, progress

    def talk(path: Path) -> Path:
        progress.note("a fact")
        progress.warn("a danger")
        with progress.bar("merging", 3) as bar:
            bar.advance()
        return run_folder

    monkeypatch.setattr(pipeline, "merge", talk)
    answer = edgetune("merge", run_folder, "--json")
    assert answer.json["run"] == str(run_folder)
    assert answer.err.splitlines()[:2] == ["a fact", "warning: a danger"]


def test_what_became_of_a_run_that_was_continued(edgetune, pipeline, run_folder: Path) -> None:
    kept = {
        "run": "runs/old",
        "new_labels": ["c"],
        "rows": {"old": 1200, "new": 300},
        "before": {"accuracy": 0.9311, "macro_f1": 0.93},
        "after": {"accuracy": 0.9277, "macro_f1": 0.92},
        "new": {"accuracy": 0.8522, "macro_f1": 0.85},
        "difference": {"value": -0.0034, "ci95": [-0.0101, 0.0032], "flips": {"right_to_wrong": 14, "wrong_to_right": 10}},
    }
    found = {"recipe": {"task": "text-classification"}, **REPORT, "adapt": {**REPORT["adapt"], "continual": kept}}
    (run_folder / "report.json").write_text(json.dumps(found))
    answer = edgetune("adapt", "--continue", "runs/old", "--data", "new.csv", "--replay", "0.5")
    assert pipeline["first"].continual.model_dump() == {"run": "runs/old", "replay": 0.5, "ewc": 0.0}
    for text in ("continued from runs/old", "0.9311", "0.9277", "0.8522", "0.9213", "1,200 old test rows, 300 new"):
        assert text in answer.out
    said = " ".join(answer.out.split())
    assert "accuracy of the old ones -0.0034 (95 % -0.0101 .. +0.0032), 14 right answers lost, 10 gained" in said
    assert edgetune("adapt", "--json").json["continual"] == kept


def test_where_training_started_is_shown(edgetune, pipeline, run_folder: Path) -> None:
    start = {"run": "runs/texts", "task": "fill-mask", "method": "full", "model": "some/base", "head": "new"}
    (run_folder / "report.json").write_text(json.dumps({"recipe": {"task": "text-classification"}, **REPORT, "start": start}))
    answer = edgetune("adapt", "--from", "runs/texts", "--data", "new.csv")
    assert pipeline["first"].start == "runs/texts"
    assert "started from runs/texts: fill-mask (full) on some/base, with a new head" in " ".join(answer.out.split())
    assert edgetune("adapt", "--json").json["start"] == start
