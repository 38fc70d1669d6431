"""Augmented runs: where the made rows stand, that they are learned from, what the report tells, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import data, pipeline
from edgetune.artifact import file_digest
from edgetune.data.columns import key
from edgetune.errors import RecipeError, RequestError

QUICK = {"adapt__epochs": 8, "data__shots": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.problem(tmp_path_factory.mktemp("augment"))
    (folder / "more.txt").write_text("\n".join([*(text for text, _ in tiny.sentences(300)), "lamp and lamp"]), "utf-8")
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """Without augmentation, scored on noisy rows all the same."""
    return pipeline.run(tiny.recipe(folder, output=str(folder / "plain"), augment__noisy_test="typos", **QUICK), "adapt")


@pytest.fixture(scope="module")
def augmented(folder: Path) -> Path:
    keys = {"kinds": "typos,mixup,self-training", "unlabelled": str(folder / "more.txt"), "threshold": 0.6}
    given = {f"augment__{name}": value for name, value in keys.items()}
    return pipeline.run(tiny.recipe(folder, output=str(folder / "augmented"), **QUICK, **given), "merge")


def report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text("utf-8"))


def test_validation_and_test_stay_as_they_are(plain: Path, augmented: Path) -> None:
    for split in data.SPLITS:
        assert file_digest(plain / "data" / f"{split}.jsonl") == file_digest(augmented / "data" / f"{split}.jsonl")
    made = data.rows(augmented / "augmented", "augmented")
    elsewhere = {key(row) for split in ("validation", "test") for row in data.rows(augmented / "data", split)}
    assert made and all(row["augmented"] in ("typos", "self-training") for row in made)
    assert not elsewhere & {key(row) for row in made}
    assert not any("augmented" in row for split in data.SPLITS for row in data.rows(augmented / "data", split))


def test_the_report_counts_what_was_made_and_learned(plain: Path, augmented: Path) -> None:
    found, before = report(augmented), report(plain)
    told = found["augment"]["self_training"]
    made = data.rows(augmented / "augmented", "augmented")
    by_kind = [sum(row["augmented"] == kind for row in made) for kind in ("typos", "self-training")]
    assert by_kind == [found["augment"]["rows"]["typos"], told["rows"]] and all(by_kind)
    assert told["rows"] < told["texts"] - told["known"], "unsure answers are believed"
    train = found["prepare"]["rows"]["train"]
    assert found["augment"]["of"] == train == 32
    epoch, alone = (one["adapt"]["history"][0]["step"] for one in (found, before))
    assert epoch == -(-(train + len(made)) // 16) > alone == -(-train // 16), "the made rows are not learned from"
    assert told["texts"] == 301 and told["known"] >= 24 + 24 + 32  # rows of all splits are among the unlabelled texts
    assert found["first"]["test"] == pytest.approx(before["adapt"]["test"]), "the first model is that of a run without augmentation"


def test_noisy_rows_are_scored_beside_clean_ones(plain: Path, augmented: Path) -> None:
    for run in (plain, augmented):
        found = report(run)["adapt"]
        noisy = found["noisy_test"]
        assert noisy["kind"] == "typos" and noisy["metrics"].keys() == found["test"].keys()
        assert noisy["metrics"]["log_loss"] != found["test"]["log_loss"]
        assert noisy["difference"]["value"] == pytest.approx(noisy["metrics"]["accuracy"] - found["test"]["accuracy"])
        assert "typos" in (run / "report.html").read_text("utf-8")
    assert "noisy_test" not in report(augmented)["first"]


def test_what_a_method_does_not_learn_from_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    for method, kinds, what in (
        ("few-shot", "mixup", "mixup"),
        ("distillation", "typos", "alters texts"),
        ("zero-shot", "typos", "no row"),
        ("none", "typos", "elsewhere"),
    ):
        asked = tiny.recipe(folder, method=method, output=str(tmp_path / "run"), augment__kinds=kinds)
        with pytest.raises(RecipeError, match=what):
            pipeline.run(asked, "adapt")
        assert not (tmp_path / "run").exists()


def test_noise_is_learned(folder: Path) -> None:
    """Words with one letter wrong are other pieces for the tiny model: it knows them only where it learned on such rows."""
    rows = tiny.sentences(240, 5)
    tiny.table(folder / "noise.csv", rows)
    keys = {"data__path": str(folder / "noise.csv"), "adapt__epochs": 4, "augment__noisy_test": "typos"}
    scores = []
    for name, more in (("before", {}), ("after", {"augment__kinds": "typos", "augment__copies": 2})):
        run = pipeline.run(tiny.recipe(folder, output=str(folder / name), **keys, **more), "adapt")
        scores.append(report(run)["adapt"]["noisy_test"]["metrics"]["log_loss"])
    assert scores[1] < scores[0]


@pytest.fixture(scope="module")
def writer(folder: Path) -> Path:
    """A tiny language model that knows the texts of the problem by heart, more or less."""
    import torch
    from conformance import models
    from transformers import AutoModelForCausalLM, AutoTokenizer

    texts = [f"- {text}\n" for text, _ in tiny.sentences(60, 9)]
    path = models.decoder(folder / "writer", texts)
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batch = tokenizer(["".join(texts[i : i + 4]) for i in range(0, 60, 4)], return_tensors="pt", padding=True)
    for _ in range(60):
        model(**batch, labels=batch["input_ids"].where(batch["attention_mask"] > 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    return path


def test_texts_that_a_language_model_writes_are_judged_and_learned(folder: Path, writer: Path) -> None:
    given = {"augment__kinds": "generation", "augment__generator": str(writer), "augment__copies": 2, **QUICK}
    runs = [pipeline.run(tiny.recipe(folder, output=str(folder / name), **given), "adapt") for name in ("written", "again")]
    made, again = (data.rows(run / "augmented", "augmented") for run in runs)
    assert made == again, "the seed decides what is written"
    told = report(runs[0])["augment"]["generation"]
    assert told["written"] == 64, "two for each of the 32 rows"
    assert told["written"] == told["known"] + told["disagreed"] + told["rows"]
    assert 0 < told["rows"] == len(made) == sum(told["label_counts"].values())
    assert told["disagreed"] > 0, "a text of another label, or of none, is not believed"
    elsewhere = {key(row) for split in data.SPLITS for row in data.rows(runs[0] / "data", split)}
    assert not elsewhere & {key(row) for row in made}
    assert {row["augmented"] for row in made} == {"generation"} and all("\n" not in row["text"] for row in made)
    assert "that a language model wrote" in (runs[0] / "report.html").read_text("utf-8")


def test_a_generator_is_named_and_must_write(folder: Path, writer: Path, tmp_path: Path) -> None:
    for more, what in (
        ({"augment__kinds": "generation"}, "needs a language model"),
        ({"augment__kinds": "typos", "augment__generator": str(writer)}, "augment.generator is given"),
        ({"augment__kinds": "generation", "augment__generator": str(tmp_path / "nowhere")}, "no model directory"),
    ):
        with pytest.raises(RequestError, match=what):
            pipeline.run(tiny.recipe(folder, output=str(tmp_path / "run"), **more, **QUICK), "adapt")
        assert not (tmp_path / "run").exists()
