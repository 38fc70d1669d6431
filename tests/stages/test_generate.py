"""generate: answers before and after, kept apart from the training, and what is told of them."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conformance import models

from edgetune import pipeline
from edgetune.artifact import Adapted, Dataset
from edgetune.errors import DataError, RecipeError
from edgetune.recipe import Recipe, load
from edgetune.stages import generate as stage
from edgetune.tasks import generated
from edgetune.workspace import Workspace

THINGS = ("lamp", "door", "song", "heater", "radio", "window", "oven", "gate", "fan", "screen", "tap", "bell")
ROWS = [
    {"prompt": f"{verb} the {thing}", "completion": f"{verb}({thing})"} for verb in ("open", "close", "start", "stop") for thing in THINGS
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generate")
    models.decoder(folder / "model", [text for row in ROWS for text in row.values()])
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), "utf-8")
    return folder


def recipe(folder: Path, **keys: Any) -> Recipe:
    given = {"model": str(folder / "model"), "task": "text-generation", "method": "full", "output": str(folder / "run")}
    given |= {"data.path": str(folder / "rows.jsonl"), "adapt.epochs": 30, "adapt.learning_rate": 5e-3, "adapt.precision": "fp32"}
    return load(None, given | {key.replace("__", "."): value for key, value in keys.items()})


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    pipeline.run(recipe(folder), "adapt")
    return json.loads((folder / "run" / "report.json").read_text("utf-8"))


def test_answers_before_and_after(folder: Path, report: dict[str, Any]) -> None:
    found = report["generated"]
    assert {"untrained", "adapted", *generated.BASELINES} <= found.keys()
    assert found["rows"] == found["of"] == report["prepare"]["rows"]["test"]
    assert found["adapted"]["chrf"] > found["untrained"]["chrf"] + 0.2
    assert found["adapted"]["rouge1"] > 0.3
    rows = [json.loads(line) for line in (folder / "run" / "generated" / "answers.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == found["rows"] and {(row["prompt"], row["reference"]) for row in rows} <= {tuple(row.values()) for row in ROWS}
    for name in ("untrained", "adapted"):
        assert generated.measure([row[name] for row in rows], [row["reference"] for row in rows]) == found[name]


def test_the_report_holds_no_text_of_the_rows(folder: Path, report: dict[str, Any]) -> None:
    page = (folder / "run" / "report.html").read_text("utf-8")
    assert "Generated texts" in page and "first words of the prompt" in page
    for line in (folder / "run" / "generated" / "answers.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        assert row["reference"] not in page and row["reference"] not in json.dumps(report)


def test_what_the_terminal_shows(folder: Path, report: dict[str, Any]) -> None:
    from rich.console import Console

    from edgetune.cli import report as terminal

    console = Console(file=io.StringIO(), width=200)
    for part in terminal.generated(folder / "run", report):
        console.print(part)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for text in ("untrained", "adapted", "lead", "commonest", "rougeL", f"{report['generated']['adapted']['chrf']:.4f}", "answers.jsonl"):
        assert text in shown
    first = json.loads((folder / "run" / "generated" / "answers.jsonl").read_text("utf-8").splitlines()[0])
    assert first["prompt"] in shown and first["reference"] in shown
    assert not list(terminal.generated(folder, {})), "nothing of a run without answers"


def test_how_many_are_answered_is_no_matter_of_training(folder: Path, report: dict[str, Any]) -> None:
    pipeline.run(recipe(folder, adapt__generated=2, adapt__baselines=True), "adapt")
    again = json.loads((folder / "run" / "report.json").read_text("utf-8"))
    assert again["adapt"] == report["adapt"]
    assert again["generated"]["rows"] == 2 and any("drawn with seed 0" in note for note in again["notes"]["generated"])


def test_none_are_answered(folder: Path, tmp_path: Path) -> None:
    pipeline.run(recipe(folder, output=str(tmp_path / "run"), adapt__generated=0, adapt__max_steps=1), "adapt")
    assert "generated" not in json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))


def finished(folder: Path) -> tuple[Any, Adapted]:
    run = Workspace(folder / "run")
    dataset, adapted = run.finished("prepare", Dataset, "data"), run.finished("adapt", Adapted, "checkpoint")
    assert dataset and adapted
    return dataset, adapted


def test_a_run_that_goes_on_keeps_its_answers(folder: Path, report: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, adapted = finished(folder)
    (out.parent / "untrained.json").write_text(json.dumps(["kept"] * report["generated"]["rows"]))
    greedy, calls = generated.greedy, []
    monkeypatch.setattr(generated, "greedy", lambda *given, **keys: calls.append(1) or greedy(*given, **keys))
    found = stage.generate(recipe(folder), dataset, adapted, out)
    assert len(calls) == 1
    assert found["adapted"] == report["generated"]["adapted"] and found["untrained"] != report["generated"]["untrained"]
    assert '"untrained": "kept"' in (out / "answers.jsonl").read_text("utf-8")


def test_without_baselines_only_the_adapted_model_answers(folder: Path, report: dict[str, Any], out: Path) -> None:
    found = stage.generate(recipe(folder, adapt__baselines=False), *finished(folder), out)
    assert found["adapted"] == report["generated"]["adapted"]
    assert not {"untrained", *generated.BASELINES} & found.keys()


def test_no_room_for_an_answer(folder: Path, report: dict[str, Any], out: Path) -> None:
    dataset, adapted = finished(folder)
    with pytest.raises(DataError, match="leaves room for an answer within 2 tokens"):
        stage.generate(recipe(folder), dataset, replace(adapted, facts={**adapted.facts, "max_length": 2}), out)


def test_conversations_go_the_whole_way(folder: Path, tmp_path: Path) -> None:
    """Rows with one system message and several turns: what the bundle is asked is what was learned, and both are measured on the same rows."""
    from transformers import AutoTokenizer

    from edgetune.runtime import load as open_bundle
    from edgetune.tasks import text_generation as task

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] + '<end>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
    )
    shutil.copytree(folder / "model", tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    system = {"role": "system", "content": "Control the house"}
    rows = []
    for i, row in enumerate(ROWS):
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        before = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "start"}] if i % 2 else []
        rows.append({"messages": [system, *before, *turns]})
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    keys = {"model": str(tmp_path / "model"), "output": str(tmp_path / "run"), "data__path": str(tmp_path / "rows.jsonl")}
    keys |= {"export__targets": ["x86_64-vnni"], "export__schemes": ["fp32"], "export__stop": [")"], "adapt__epochs": 10}
    run = pipeline.run(recipe(folder, **keys))
    bundle = open_bundle(run / "bundles" / "x86_64-vnni")
    assert (bundle.generation["system"], bundle.generation["stop"]) == (system["content"], [")"])
    assert bundle.generation["max_new_tokens"] == 128
    for row in (rows[0], rows[1]):
        [asked] = task.asked([row], tokenizer, max_length=500)
        assert bundle.read(row["messages"][:-1])[0] == [{"input_ids": asked.ids}]
    assert bundle.read(ROWS[0]["prompt"]) == bundle.read(rows[0]["messages"][:-1])
    report = json.loads((run / "report.json").read_text("utf-8"))
    [measured] = [entry["generated"] for entry in report["benchmark"]["bundles"]]
    assert (measured["rows"], measured["of"]) == (report["generated"]["rows"],) * 2
    assert "Generated texts: greedy answers to" in (run / "report.html").read_text("utf-8")
    answers = [json.loads(line) for line in (run / "generated" / "answers.jsonl").read_text("utf-8").splitlines()]
    cut = generated.measure([row["adapted"].partition(")")[0] for row in answers], [row["reference"] for row in answers])
    assert {name: measured[name] for name in generated.METRICS} == pytest.approx(cut), "the same answers, up to the stop text"


def test_stops_are_for_what_writes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"export\.stop holds an empty text"):
        pipeline.run(load(None, {"task": "text-generation", "method": "full", "export.stop": "", "data.path": "d"}))
    with pytest.raises(RecipeError, match=r"export\.stop is given, but text-classification writes no text"):
        pipeline.run(load(None, {"task": "text-classification", "method": "full", "export.stop": "x", "data.path": "d"}))
