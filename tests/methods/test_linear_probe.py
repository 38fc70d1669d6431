"""The head of frozen features: descriptions of labels are rows of it where they tell the rows apart, and are none where they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from sklearn.linear_model import LogisticRegression

from edgetune import tasks
from edgetune.methods import Lesson, linear_probe, zero_shot
from edgetune.methods.device import Device
from edgetune.methods.model import load_tokenizer
from edgetune.recipe import Recipe

TASK = tasks.get("text-classification")
LABELS = ["lamp", "song", "door"]
TEXTS = [
    ("lamp light", "lamp"),
    ("light bulb lamp", "lamp"),
    ("song album", "song"),
    ("play song", "song"),
    ("door lock", "door"),
    ("open door", "door"),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    tiny.bert(tmp_path / "model")
    return tiny.recipe(tmp_path, method="linear-probe")


def probe(recipe: Recipe, labels: list[str], rows: list[tuple[str, str]], pairs: bool = False) -> linear_probe.Probe:
    made = [{"text": text, "label": label} for text, label in rows]
    tokenizer = load_tokenizer(recipe)
    examples = TASK.module.encode(made, tokenizer, max_length=64, labels=labels).examples
    task = tasks.of("text-classification", ["text", "label", *(["text_pair"] if pairs else [])])
    return linear_probe.training(Lesson(recipe, task, labels, made, examples, tokenizer, 64, Device("cpu", False), Path()))


def said(given: Any) -> dict[str, np.ndarray]:
    """A text's vector: which tokens it has."""
    bags = np.zeros((len(given["input_ids"]), 200), dtype=np.float32)
    for bag, ids, mask in zip(bags, given["input_ids"], given["attention_mask"], strict=True):
        bag[ids[mask > 0]] = 1
    return {"sentence_embedding": bags / np.linalg.norm(bags, axis=1, keepdims=True)}


def fitted(recipe: Recipe, labels: list[str], rows: list[tuple[str, str]]) -> np.ndarray:
    """What scikit-learn makes of these rows."""
    examples = probe(recipe, labels, rows).rows
    found = LogisticRegression(C=10.0, max_iter=500).fit(linear_probe.vectors(said, examples, 0), [row["label"] for row in examples])
    coefficients: np.ndarray = found.coef_
    return coefficients


def test_names_that_tell_the_rows_apart_are_rows(recipe: Recipe) -> None:
    one = probe(recipe, LABELS, TEXTS)
    weight, _ = one._head(said)
    assert one._right == 1.0 and one._telling
    np.testing.assert_allclose(weight, fitted(recipe, LABELS, [*TEXTS, *((label, label) for label in LABELS)]), atol=1e-4)


def test_names_that_do_not_are_none(recipe: Recipe) -> None:
    names = dict(zip(LABELS, ("type_a", "type_b", "type_c"), strict=True))
    rows = [(text, names[label]) for text, label in TEXTS]
    one = probe(recipe, list(names.values()), rows)
    weight, _ = one._head(said)
    assert not one._telling
    np.testing.assert_allclose(weight, fitted(recipe, list(names.values()), rows), atol=1e-4)


def test_several_descriptions_of_a_label_are_one_row_together(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "meaning.csv").write_text("label,description\nlamp,lamp\nlamp,lamp\nsong,song\ndoor,door\n", "utf-8")
    twice = recipe.model_copy(update={"data": recipe.data.model_copy(update={"descriptions": str(tmp_path / "meaning.csv")})})
    np.testing.assert_allclose(probe(twice, LABELS, TEXTS)._head(said)[0], probe(recipe, LABELS, TEXTS)._head(said)[0], atol=1e-4)


def test_pairs_of_texts_have_no_names_and_zero_shot_no_rows_beside_them(recipe: Recipe) -> None:
    assert probe(recipe, LABELS, TEXTS, pairs=True)._told == []
    lesson = Lesson(recipe, TASK, LABELS, [], [], load_tokenizer(recipe), 64, Device("cpu", False), Path())
    assert zero_shot.training(lesson)._told == []
