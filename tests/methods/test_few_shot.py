"""few-shot: which pairs are drawn, what the loss asks of them, and that the fitted head is in the model that is saved."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgetune import tasks
from edgetune.methods import Lesson, few_shot
from edgetune.methods.device import Device
from edgetune.methods.model import forward, load_merged, load_tokenizer
from edgetune.recipe import Recipe

TASK = tasks.get("text-classification")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("few")
    tiny.bert(folder / "model")
    return tiny.recipe(folder, method="few-shot")


def examples(recipe: Recipe, rows: int = 32, outside: int = 0) -> list[dict[str, Any]]:
    made = [{"text": text, "label": label} for text, label in tiny.sentences(rows, outside=outside)]
    return TASK.module.encode(made, load_tokenizer(recipe), max_length=64, labels=tiny.LABELS).examples


def learner(recipe: Recipe, rows: list[dict[str, Any]], classes: int = 4) -> few_shot.Pairs:
    labels = [str(i) for i in range(classes)]
    return few_shot.training(Lesson(recipe, TASK, labels, [], rows, load_tokenizer(recipe), 64, Device("cpu", False), Path()))


@pytest.mark.parametrize(("rows", "outside"), [(8, 0), (32, 4), (400, 0)])
def test_pairs_are_of_one_label_all_different_and_capped(recipe: Recipe, rows: int, outside: int) -> None:
    found = examples(recipe, rows, outside)
    pairs = learner(recipe, found).examples
    assert len({pair["pair"] for pair in pairs}) == len(pairs)
    for pair in pairs:
        first, second = pair["pair"]
        assert first < second and found[first]["label"] == found[second]["label"] == pair["label"]
    most = Counter(pair["label"] for pair in pairs)
    assert set(most) == {one["label"] for one in found}
    if rows == 400:  # 100 rows of a label make 4,950 pairs
        assert set(most.values()) == {few_shot.MOST_PAIRS // 4}
    else:
        assert most[0] == (rows // 4) * (rows // 4 - 1) // 2


def test_pairs_come_from_the_seed(recipe: Recipe) -> None:
    found = examples(recipe, 400)
    first, again = (learner(recipe, found).examples for _ in range(2))
    other = learner(recipe.model_copy(update={"seed": 1}), found).examples
    assert first == again != other


def test_a_batch_has_both_texts_of_each_pair(recipe: Recipe) -> None:
    found = examples(recipe)
    made = learner(recipe, found)
    batch = made.collate(made.examples[:3], 0)
    assert batch["input_ids"].shape[0] == 6
    for row, ids, mask, label in zip(batch["rows"], batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        assert ids[mask > 0].tolist() == found[row]["input_ids"] and label == found[row]["label"]
    assert [tuple(pair) for pair in batch["rows"].reshape(-1, 2)] == [pair["pair"] for pair in made.examples[:3]]


def said(vectors: Any, labels: list[int], rows: list[int] | None = None) -> float:
    """The loss, by the learner."""
    batch = {"labels": torch.tensor(labels), "rows": torch.tensor(rows or list(range(len(labels))))}
    return float(few_shot.Pairs.loss(None, {"sentence_embedding": torch.tensor(vectors)}, batch))  # type: ignore[arg-type]


def test_the_loss_is_the_papers() -> None:
    """Equation 2 of arXiv:2004.11362, written out."""
    vectors = np.random.default_rng(0).normal(size=(6, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = [0, 0, 1, 1, 0, 1]
    expected = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        total = sum(np.exp(vectors[i] @ vectors[j] / few_shot.TEMPERATURE) for j in others)
        alike = [j for j in others if labels[j] == labels[i]]
        expected.append(-np.mean([np.log(np.exp(vectors[i] @ vectors[j] / few_shot.TEMPERATURE) / total) for j in alike]))
    assert said(vectors, labels) == pytest.approx(np.mean(expected), rel=1e-5)


def test_what_the_loss_asks_for() -> None:
    a, b = [1.0, 0.0], [0.0, 1.0]
    assert said([a, a, b, b], [0, 0, 1, 1]) < 1e-3 < 5 < said([a, b, a, b], [0, 0, 1, 1])
    assert said([a, a, b, b], [0, 0, -1, -1]) < 1e-3, "rows out of scope only push away"
    assert said([a, a, b, b], [-1, -1, -1, -1]) == 0.0, "nothing is alike"
    assert said([a, a, b, b], [0, 0, 1, 1], rows=[0, 0, 1, 1]) == 0.0, "a row is not a pair with itself"
    loss = torch.tensor([a, a, b, b], requires_grad=True)
    batch = {"labels": torch.tensor([0, 0, 1, 1]), "rows": torch.arange(4)}
    few_shot.Pairs.loss(None, {"sentence_embedding": loss}, batch).backward()  # type: ignore[arg-type]
    assert loss.grad is not None and torch.isfinite(loss.grad).all(), "masked parts leave no nan"


@pytest.mark.parametrize(("classes", "outside", "weights"), [(4, 0, "none"), (4, 6, "none"), (2, 0, "none"), (4, 0, "balanced")])
def test_the_fitted_head_is_saved_with_the_model(recipe: Recipe, tmp_path: Path, classes: int, outside: int, weights: str) -> None:
    labels = tiny.LABELS[:classes]
    rows = [one for one in examples(recipe, 48, outside) if one["label"] < classes]
    recipe = recipe.model_copy(update={"adapt": recipe.adapt.model_copy(update={"class_weights": weights})})
    model = few_shot.attach(recipe, labels).eval()
    made = learner(recipe, rows, classes)
    while_training = made.score(forward(model), rows, 0)
    made.finish(model)
    after = TASK.module.score(forward(model), rows, 0)
    np.testing.assert_allclose(after.logits, while_training.logits, atol=1e-4)
    assert after.value.sum() / after.weight.sum() > 1.5 / classes, "the head tells labels apart that it was fitted to"
    if outside:
        sure = torch.tensor(after.logits).softmax(-1).max(-1).values.numpy()
        assert sure[after.weight == 0].mean() < sure[after.weight == 1].mean(), "it is less sure of rows out of scope"
    few_shot.save(model, tmp_path)
    again = few_shot.restore(recipe, tmp_path, labels)
    assert type(again).__name__ == "PooledClassifier"
    np.testing.assert_allclose(TASK.module.score(forward(again), rows, 0).logits, after.logits, atol=1e-5)
    merged = few_shot.merge(recipe, tmp_path, labels)
    np.testing.assert_allclose(TASK.module.score(forward(merged.model), rows, 0).logits, after.logits, atol=1e-5)


def test_half_of_what_the_pairs_changed_is_kept(recipe: Recipe) -> None:
    model = few_shot.attach(recipe, tiny.LABELS).eval()
    before = {name: weight.detach().clone() for name, weight in model.base_model.named_parameters()}
    with torch.no_grad():
        for weight in model.base_model.parameters():
            weight += torch.rand_like(weight)
    after = {name: weight.detach().clone() for name, weight in model.base_model.named_parameters()}
    learner(recipe, examples(recipe)).finish(model)
    for name, weight in model.base_model.named_parameters():
        assert torch.allclose(weight, (before[name] + after[name]) / 2, atol=1e-6), name


def test_padding_is_not_read_and_the_head_is_not_trained(recipe: Recipe) -> None:
    model = few_shot.attach(recipe, tiny.LABELS).eval()
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"classifier.weight", "classifier.bias"}
    run = forward(model)
    ids, mask = np.array([[2, 9, 8, 3]]), np.ones((1, 4), dtype=np.int64)
    alone = run({"input_ids": ids, "attention_mask": mask})
    padded = run({"input_ids": np.pad(ids, ((0, 0), (0, 3))), "attention_mask": np.pad(mask, ((0, 0), (0, 3)))})
    np.testing.assert_allclose(alone["sentence_embedding"], padded["sentence_embedding"], atol=1e-6)
    assert np.linalg.norm(alone["sentence_embedding"]) == pytest.approx(1.0, abs=1e-6)


def test_another_method_goes_on_from_such_a_model(recipe: Recipe, tmp_path: Path) -> None:
    from edgetune.methods import full

    made = few_shot.attach(recipe, tiny.LABELS)
    few_shot.save(made, tmp_path / "model")
    load_tokenizer(recipe).save_pretrained(tmp_path / "model")
    model = full.attach(tiny.recipe(tmp_path), tiny.LABELS)
    assert type(model).__name__ == type(load_merged(tmp_path / "model", "text-classification")).__name__ == "PooledClassifier"
    assert torch.equal(model.classifier.weight, made.classifier.weight)
    assert all(weight.requires_grad for weight in model.parameters())
