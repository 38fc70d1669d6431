"""adapt: what it found out, what it leaves on disk, and that the two agree."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from math import comb
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from edgetune import data, methods, progress, tasks
from edgetune.errors import DataError, GateError, ModelError, RecipeError
from edgetune.methods import baselines, full
from edgetune.methods.examples import encode
from edgetune.methods.learning import set_dropout
from edgetune.methods.measured import beaten_by, facts
from edgetune.methods.model import load_merged
from edgetune.methods.settings import resolve
from edgetune.recipe import Recipe
from edgetune.stages import adapt as stage
from edgetune.tasks import text_classification as task

METHODS = ("full", "head", "few-shot", "lora")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_tells(toy_run: Callable[[str], Any], method: str) -> None:
    facts = toy_run(method).adapted.facts
    assert facts["test"]["accuracy"] > (0.3 if method == "head" else 0.6)
    assert facts["history"][-1]["train_loss"] < facts["history"][0]["train_loss"]
    learned = _pairs(toy_run(method)) if method == "few-shot" else _rows(toy_run(method))
    assert facts["steps"] == facts["history"][-1]["step"] <= 4 * math.ceil(learned / 16)
    assert facts["steps"] % math.ceil(learned / 16) == 0
    assert facts["labels"] == list(tiny.LABELS)
    assert (facts["device"], facts["precision"], facts["max_length"]) == ("cpu", "fp32", 64)
    assert facts["threads"] >= 1 and facts["peak_rss_bytes"] > 10e6 and facts["seconds"] >= 0
    assert {row["label"] for row in facts["per_label"]} == set(tiny.LABELS)
    json.dumps(facts)


def _pairs(run: Any) -> int:
    counts = run.dataset.facts["label_counts"]["train"].values()
    return sum(min(comb(count, 2), 2500 // len(counts)) for count in counts)


def _rows(run: Any) -> int:
    return int(run.dataset.facts["rows"]["train"])


def test_how_much_each_method_trains(toy_run: Callable[[str], Any]) -> None:
    trained = {method: toy_run(method).adapted.facts["trained_weights"] for method in METHODS}
    every = sum(weight.numel() for weight in load_merged(toy_run("full").merged.path, "text-classification").parameters())
    assert trained["full"] == every
    assert trained["head"] == 32 * 32 + 32 + 4 * 32 + 4, "pooler and classifier"
    assert trained["head"] < trained["lora"] < every
    assert trained["few-shot"] == every - trained["head"], "all but the pooler, which it has not, and the head, which is fitted"


def test_head_leaves_the_base_alone(toy_folder: Path, toy_run: Callable[[str], Any]) -> None:
    from transformers import AutoModel

    base = AutoModel.from_pretrained(toy_folder / "model").state_dict()
    after = load_merged(toy_run("head").adapted.path, "text-classification").bert.state_dict()
    changed = {name for name, weight in base.items() if not torch.equal(weight, after[name])}
    assert changed == {"pooler.dense.weight", "pooler.dense.bias"}


@pytest.mark.parametrize("method", ["full", "head", "few-shot"])
def test_what_is_on_disk_scores_what_was_reported(toy_run: Callable[[str], Any], method: str) -> None:
    from edgetune.methods.model import forward, load_tokenizer

    run = toy_run(method)
    rows = data.rows(run.dataset.path, "test")
    examples = task.encode(rows, load_tokenizer(run.recipe), max_length=64, labels=tiny.LABELS).examples
    found = task.metrics(task.score(forward(load_merged(run.adapted.path, "text-classification")), examples, 0), tiny.LABELS)
    assert found == pytest.approx(run.adapted.facts["test"], abs=1e-6)
    assert sorted(path.name for path in run.adapted.path.iterdir()) == ["config.json", "model.safetensors"]


def small(run: Any, **changes: Any) -> Recipe:
    keys = {"method": "full", "adapt__max_steps": 2, **changes}
    return tiny.recipe(Path(run.recipe.model).parent, **keys)


@pytest.mark.parametrize("tampering", ["another head", "one weight", "nan"])
def test_a_save_that_loses_something_is_refused(
    toy_run: Callable[[str], Any], out: Path, monkeypatch: pytest.MonkeyPatch, tampering: str
) -> None:
    original = full.save

    def save(model: Any, folder: Path) -> None:
        with torch.no_grad():
            if tampering == "another head":
                torch.nn.init.normal_(model.classifier.weight)
            elif tampering == "one weight":
                model.classifier.weight[0, 0] += 0.1
            else:
                model.classifier.weight.fill_(float("nan"))
        original(model, folder)

    monkeypatch.setattr(full, "save", save)
    run = toy_run("full")
    with pytest.raises(GateError, match="the model reloaded from disk scores differently"):
        stage.adapt(small(run), run.dataset, out)


def test_a_lost_adapter_is_refused(toy_run: Callable[[str], Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.methods import adapters

    original = adapters.save

    def save(model: Any, folder: Path) -> None:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight += 0.1
        original(model, folder)

    monkeypatch.setattr(adapters, "save", save)
    run = toy_run("full")
    with pytest.raises(GateError, match="scores differently"):
        stage.adapt(small(run, method="lora"), run.dataset, out)


def test_baselines_are_kept_for_a_resumed_run(toy_run: Callable[[str], Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run("full")
    first = stage.adapt(small(run, adapt__baselines=True), run.dataset, out)["baselines"]
    assert set(first) == {"untrained", "frozen_logistic_regression", "zero_shot"}
    assert first["frozen_logistic_regression"]["accuracy"] > first["untrained"]["accuracy"]
    monkeypatch.setattr(baselines, "logistic_regression", lambda *_: pytest.fail("done again"))
    assert stage.adapt(small(run, adapt__baselines=True), run.dataset, out)["baselines"] == first


@pytest.mark.parametrize(
    ("method", "rows", "epochs"), [("full", 10_000, 5), ("full", 100, 20), ("full", 2000, 8), ("head", 10_000, 8), ("lora", 10_000, 6)]
)
def test_zeros_mean_the_methods_own_numbers(method: str, rows: int, epochs: int) -> None:
    """Few rows get more epochs, up to twenty."""
    settings = resolve(Recipe(task="text-classification", method=method, seed=7), rows)
    defaults = methods.get(method).defaults["encoder"]
    assert settings.epochs == epochs
    assert (settings.batch_size, settings.learning_rate, settings.seed) == (defaults.batch_size, defaults.learning_rate, 7)


def test_numbers_that_were_given_are_taken() -> None:
    keys = {"epochs": 1, "batch_size": 4, "learning_rate": 0.5, "max_steps": 9, "early_stopping": 0, "accumulation": 2}
    settings = resolve(Recipe(task="text-classification", method="full", adapt=keys), 100)
    assert {name: getattr(settings, name) for name in keys} == keys


def test_texts_that_are_cut_are_told(toy_run: Callable[[str], Any], out: Path) -> None:
    run = toy_run("full")
    with progress.collecting() as notes:
        facts = stage.adapt(small(run, adapt__max_length=4), run.dataset, out)
    assert facts["max_length"] == 4
    assert any(note.startswith("train: ") and "longer than 4 tokens and were cut" in note for note in notes)
    assert any(note.startswith("memory estimate: ") for note in notes)
    assert any(note.startswith("training on cpu in float32") for note in notes)


def test_more_tokens_than_the_model_takes(toy_run: Callable[[str], Any], out: Path) -> None:
    run = toy_run("full")
    with pytest.raises(ModelError, match=r"adapt\.max_length = 65, but .* takes 64 tokens"):
        stage.adapt(small(run, adapt__max_length=65), run.dataset, out)


def test_no_gpu_here(toy_run: Callable[[str], Any], out: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    run = toy_run("full")
    with pytest.raises(RecipeError, match="torch sees no GPU"):
        stage.adapt(small(run, adapt__device="cuda"), run.dataset, out)


def test_a_split_of_which_nothing_can_be_used(toy_run: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune import tasks

    class Nothing:
        @staticmethod
        def encode(rows: Any, *_: Any, **__: Any) -> Any:
            return tasks.Encoded([], left_out=[(i, "too long") for i in range(len(rows))])

    monkeypatch.setattr(tasks.Task, "module", Nothing)
    with progress.collecting() as notes, pytest.raises(DataError, match="no row of train can be used"):
        encode(tasks.get("text-classification"), [{"row": 5}, {"row": 6}], None, 8, (), "train")
    assert notes == ["train: 2 of 2 rows left out (row 5: too long, row 6: too long)"]


def test_a_row_without_a_token_to_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune import tasks

    for example in ({"input_ids": [], "label": 0}, {"input_ids": [1, 2], "labels": [-100, -100]}):

        class One:
            @staticmethod
            def encode(*_: Any, example: dict[str, Any] = example, **__: Any) -> Any:
                return tasks.Encoded([example])

        monkeypatch.setattr(tasks.Task, "module", One)
        with pytest.raises(GateError, match="a row has no token to learn from"):
            encode(tasks.get("text-classification"), [{"row": 1}], None, 8, (), "train")


def test_dropout_is_what_the_recipe_says(toy_folder: Path) -> None:
    recipe = tiny.recipe(toy_folder, method="lora", lora__dropout=0.3)
    from edgetune.methods import adapters

    model = adapters.attach(recipe, list(tiny.LABELS))
    set_dropout(model, 0.25)
    found = {("lora_" in name, module.p) for name, module in model.named_modules() if isinstance(module, torch.nn.Dropout)}
    assert found == {(True, 0.3), (False, 0.25)}


def test_the_metric_without_rows_that_were_in_train_too(toy_run: Callable[[str], Any], tmp_path: Path) -> None:
    """Given only when there are such rows."""
    run = toy_run("full")
    assert "test_without_overlap" not in run.adapted.facts
    import numpy as np

    from edgetune import tasks
    from edgetune.tasks import Scores

    logits, target = np.eye(4, dtype=np.float32)[[0, 1, 2, 3]] * 9, np.array([0, 1, 3, 0])
    scores = Scores((logits.argmax(-1) == target).astype(float), np.ones(4), logits, target)
    given = SimpleNamespace(task=tasks.get("text-classification"), labels=tiny.LABELS, rows={"test": [{"overlap": True}, {}, {}, {}]})
    given.metrics = lambda scores: task.metrics(scores, tiny.LABELS)
    found = facts(run.recipe, given, {"validation": scores, "test": scores})
    assert found["test"]["accuracy"] == 0.5
    assert found["test_without_overlap"]["accuracy"] == pytest.approx(1 / 3)


def test_a_rare_class_is_not_forgotten(tmp_path: Path) -> None:
    """15 rows of one class for each of another: a model that is let alone seldom says the rare one."""
    from edgetune import pipeline

    tiny.bert(tmp_path / "model")
    every = tiny.sentences(1200)
    common = [row for row in every if row[1] == "heat"]
    rare = [row for row in every if row[1] == "door"]
    for split, (many, few) in {"train": (slice(0, 240), slice(0, 16)), "validation": (slice(240, 260), slice(60, 80))}.items():
        tiny.table(tmp_path / "data" / f"{split}.csv", common[many] + rare[few])
    tiny.table(tmp_path / "data" / "test.csv", common[260:300] + rare[80:120])
    found = {}
    for how in ("none", "balanced"):
        keys = {"data__path": str(tmp_path / "data"), "adapt__class_weights": how, "output": str(tmp_path / how), "adapt__epochs": 6}
        run = pipeline.run(tiny.recipe(tmp_path, adapt__learning_rate=2e-3, **keys), "adapt")
        report = json.loads((run / "report.json").read_text("utf-8"))
        found[how] = report["adapt"]["test"]["worst_recall"]
        assert any("each class counts the same" in note for note in report["notes"]["adapt"]) == (how == "balanced")
        assert any("--class-weights balanced" in note for note in report["notes"]["prepare"])
    assert found["balanced"] > found["none"] + 0.2


def test_weights_of_classes_where_there_are_none(tmp_path: Path) -> None:
    from edgetune import pipeline

    with pytest.raises(RecipeError, match=r"class_weights = balanced, but text-generation has no classes"):
        pipeline.run(tiny.recipe(tmp_path, task="text-generation", method="lora", adapt__class_weights="balanced"), "adapt")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "metric", "baselines", "beaten"),
    [
        (
            "text-classification",
            0.8,
            {"frozen_logistic_regression": {"accuracy": 0.81}, "untrained": {"accuracy": 0.1}},
            ["frozen_logistic_regression"],
        ),
        ("text-classification", 0.8, {"frozen_logistic_regression": {"accuracy": 0.8}}, []),
        ("fill-mask", 30.0, {"untrained": {"perplexity": 29.0}}, ["untrained"]),
        ("fill-mask", 30.0, {"untrained": {"perplexity": 31.0}}, []),
        ("text-classification", 0.8, {}, []),
    ],
)
def test_a_baseline_that_does_better_is_told(name: str, metric: float, baselines: Any, beaten: list[str]) -> None:
    row = tasks.get(name)
    with progress.collecting() as notes:
        assert beaten_by(row, {row.metric: metric}, baselines, 50) == beaten
    assert len(notes) == len(beaten)
    if beaten:
        assert "adaptation did not pay: on 50 test rows the baseline" in notes[0]
        assert ("--method linear-probe ships it" in notes[0]) == (name == "text-classification")


def test_a_run_that_learned_too_little_says_so(toy_run: Callable[[str], Any], out: Path) -> None:
    run = toy_run("full")
    with progress.collecting() as notes:
        facts = stage.adapt(small(run, adapt__baselines=True, adapt__max_steps=1, adapt__learning_rate=1e-6), run.dataset, out)
    assert "frozen_logistic_regression" in facts["beaten_by"] and any("adaptation did not pay" in note for note in notes)
