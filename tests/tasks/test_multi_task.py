"""Several tasks in one model: each reads its own logits, counts the same however many rows it has, and is not asked where a row is silent."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as some

from edgetune.errors import DataError, RecipeError
from edgetune.methods import check
from edgetune.recipe import Recipe, load
from edgetune.tasks import joined, text_classification
from edgetune.tasks import multi_task as task

ROWS: list[dict[str, Any]] = [
    {"text": "play song", "tasks": {"about": "music", "mood": "glad"}},
    {"text": "lock the gate", "tasks": {"about": "home"}},
    {"text": "lock", "tasks": {"about": "home", "mood": "cross"}},
    {"text": "the gate", "tasks": {"mood": "so-so: fine"}},
]
LABELS = ["about:home", "about:music", "mood:cross", "mood:glad", "mood:so-so: fine"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    tokenizer = tiny.tokenizer(tmp_path_factory.mktemp("words"))
    found: list[dict[str, Any]] = task.encode(ROWS, tokenizer, max_length=64, labels=LABELS).examples
    return found


def test_labels_of_a_task_stand_together() -> None:
    assert task.classes(ROWS) == LABELS
    assert task.parts(LABELS) == {"about": slice(0, 2), "mood": slice(2, 5)}
    names = ["a", "a b", "a-b", "ab"]
    rows = [{"tasks": dict.fromkeys(names, label)} for label in ("x", "y", "-", " ")]
    assert list(task.parts(task.classes(rows))) == names
    with pytest.raises(DataError, match="one label only for mood"):
        task.classes(ROWS[:2])


def test_unknown_labels_are_refused(examples: list[dict[str, Any]]) -> None:
    assert [example["answers"] for example in examples] == [[1, 3], [0, -100], [0, 2], [-100, 4]]
    with pytest.raises(DataError, match="labels that the model does not know: mood:sad"):
        task.encode([{"text": "a", "tasks": {"mood": "sad"}}], None, max_length=9, labels=LABELS)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_a_classifier_a_task(examples: list[dict[str, Any]], weighted: bool) -> None:
    logits, smoothing = torch.randn(4, 5, generator=torch.manual_seed(0)), 0.1
    batch = {name: torch.from_numpy(array) for name, array in task.collate(examples, 0).items()}
    weights = task.weights(examples, LABELS) if weighted else None
    found = float(task.loss({"logits": logits}, batch, smoothing, weights))
    alone = []
    for part, rows, labels in ((slice(0, 2), [0, 1, 2], [1, 0, 0]), (slice(2, 5), [0, 2, 3], [1, 0, 2])):
        own = None if weights is None else (weights[0][part],)
        given = {"labels": torch.tensor(labels)}
        alone.append(float(text_classification.loss({"logits": logits[rows][:, part]}, given, smoothing, own)))
    assert found == pytest.approx(np.mean(alone), rel=1e-6), "three answers each"
    if weights is not None:
        assert weights[0] == pytest.approx([0.75, 1.5, 1, 1, 1])


def told(logits: np.ndarray, examples: list[dict[str, Any]]) -> Any:
    by_ids = {tuple(example["input_ids"]): row for example, row in zip(examples, logits, strict=True)}

    def forward(given: Any) -> dict[str, np.ndarray]:
        return {
            "logits": np.stack(
                [by_ids[tuple(ids[mask > 0].tolist())] for ids, mask in zip(given["input_ids"], given["attention_mask"], strict=True)]
            )
        }

    return task.score(forward, examples, 0, size=2)


def test_every_task_counts_the_same(examples: list[dict[str, Any]]) -> None:
    said = np.full((4, 5), -1.0, dtype=np.float32)
    for row, columns in enumerate([(1, 3), (0, 4), (1, 2), (1, 4)]):  # of "about" one of three is wrong
        said[row, list(columns)] = 3.0
    scores = told(said, examples)
    found = task.metrics(scores, LABELS)
    assert found["about_accuracy"] == pytest.approx(2 / 3) and found["mood_accuracy"] == 1
    assert found["accuracy"] == pytest.approx(5 / 6) == pytest.approx(task.quality(scores))
    assert (scores.value.tolist(), scores.weight.tolist()) == ([2, 1, 1, 1], [2, 1, 2, 1])
    apart = joined([told(said[i : i + 1], examples[i : i + 1]) for i in range(4)])
    assert task.quality(apart) == task.quality(scores), "however many rows are scored at a time"
    own = [text_classification.metrics(task.answered(said, examples).take(np.array(rows)), LABELS) for rows in ([0, 2],)]
    assert own[0]["accuracy"] == 0.75, "three of the four answers of two rows"
    chances = {2: 1 / (1 + np.exp(-4.0)), 3: 1 / (1 + 2 * np.exp(-4.0))}
    wrong = 1 / (1 + np.exp(4.0))
    costs = [chances[2], chances[2], wrong, *[chances[3]] * 3]
    assert found["log_loss"] == pytest.approx(-np.log(costs).mean(), abs=1e-6), "no task speaks about another's labels"
    assert scores.lines is not None and scores.lines.tolist() == [2, 1, 2, 1]
    report = {row["label"]: row for row in task.report(scores, LABELS)}
    assert list(report) == LABELS
    assert (report["about:home"]["recall"], report["about:home"]["taken_for"]) == (0.5, "about:music")
    assert report["mood:so-so: fine"]["support"] == 1

    some = scores.take(np.array([0, 1]))
    assert task.metrics(some, LABELS)["accuracy"] == 1
    assert list(task.metrics(scores.take(np.array([1])), LABELS)) == ["accuracy", "macro_f1", "log_loss", "about_accuracy"], "none of mood"
    again = task.metrics(joined([some, scores.take(np.array([2, 3]))]), LABELS)
    assert again == pytest.approx(found)


@pytest.mark.parametrize("rows", [[], [3, 0, 2], [1, 1, 3]])
def test_rows_are_taken_with_all_their_answers(examples: list[dict[str, Any]], rows: list[int]) -> None:
    scores = told(np.arange(20, dtype=np.float32).reshape(4, 5), examples)
    parts = [scores.take(np.array([row])) for row in rows]
    some = scores.take(np.array(rows, dtype=int))
    for name in ("logits", "target", "lines", "value", "weight", "extra"):
        assert np.array_equal(getattr(some, name), np.concatenate([getattr(scores, name)[:0], *(getattr(part, name) for part in parts)]))


def test_each_task_has_its_own_confidence(examples: list[dict[str, Any]]) -> None:
    said = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    scores = told(said, examples)
    chosen = task.calibrate(scores, Recipe())
    assert len(chosen["of_tasks"]) == 2 and chosen["chosen_by"].startswith("validation")
    assert set(task.calibrated(scores, chosen)) == {"expected_calibration_error", "answered", "accuracy_answered"}
    silent = task.calibrate(scores.take(np.array([1])), Recipe())
    assert silent["of_tasks"][1] == {"temperature": 1.0, "reject_below": 0.0}, "nothing is known of a task without rows"


@given(some.lists(some.integers(1, 40), min_size=1, max_size=3), some.floats(1, 100), some.integers(0, 5))
def test_rows_are_drawn_by_temperature(sizes: list[int], temperature: float, seed: int) -> None:
    patterns = ([1, -100], [-100, 2], [1, 2])
    examples = [{"answers": pattern} for size, pattern in zip(sizes, patterns, strict=False) for _ in range(size)]
    found = task.drawn(examples, temperature, random.Random(seed))
    assert len(found) == len(examples)
    if temperature == 1:
        assert sorted(found) == list(range(len(examples)))
    times = Counter(found)
    kinds = [range(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
    shares = np.array(sizes) ** (1 / temperature)
    for kind, share in zip(kinds, shares / shares.sum(), strict=True):
        own = [times[i] for i in kind]
        assert max(own) - min(own) <= 1, "none comes twice before all came once"
        assert abs(sum(own) - share * len(examples)) <= 1


def test_one_data_set_has_no_temperature() -> None:
    with pytest.raises(RecipeError, match="sampling_temperature = 2, but text-classification has one data set"):
        check.complete(load(None, {"task": "text-classification", "method": "full", "adapt.sampling_temperature": 2}), "adapt")


def test_one_head_is_enough() -> None:
    labels = ["only:a", "only:b"]
    rows = [{"answers": [i], "ends": [2]} for i in (0, 1)]
    scores = task.answered(np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32), rows)
    assert task.metrics(scores, labels)["only_accuracy"] == 0.5


def test_words() -> None:
    from edgetune.runtime.answers import multi_task

    found = {"tasks": {"about": {"label": None, "confidence": 0.4}, "mood": {"label": "glad", "confidence": 0.9}}}
    assert multi_task.line(found) == "about: (no label) 0.400\tmood: glad 0.900"
