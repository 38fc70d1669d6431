"""A model that learns what adapted ones answer: the pupil does what its teachers do, and knows who may teach it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgetune import data, pipeline, progress, tasks
from edgetune.artifact import Dataset
from edgetune.errors import DataError, EdgetuneError
from edgetune.methods import Lesson, distillation, teachers
from edgetune.methods.device import Device
from edgetune.methods.model import forward, load_merged, load_tokenizer, tokenizer_in
from edgetune.recipe import Recipe
from edgetune.workspace import Workspace

TASK = tasks.get("text-classification")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy problem, and two runs of it that can teach."""
    place = tiny.problem(tmp_path_factory.mktemp("taught"))
    for seed in (0, 1):
        pipeline.run(tiny.recipe(place, output=str(place / f"teacher-{seed}"), seed=seed, adapt__learning_rate=5e-3), "merge")
    return place


def asked(folder: Path, *names: str, **changes: Any) -> Recipe:
    places = ",".join(str(folder / name) for name in names)
    return tiny.recipe(folder, method="distillation", distillation__teacher=places, adapt__learning_rate=5e-3, **changes)


def lesson(recipe: Recipe, folder: Path, scratch: Path) -> Lesson:
    found = Workspace(folder / "teacher-0").finished("prepare", Dataset, "data")
    assert found
    rows = data.rows(found.path, "train")[:40]
    return Lesson(
        recipe, tasks.of(TASK.name, ("text", "label")), tiny.LABELS, rows, [], load_tokenizer(recipe), 64, Device("cpu", False), scratch
    )


def test_the_pupil_answers_as_its_teacher_does(folder: Path) -> None:
    recipe = asked(folder, "teacher-0", output=str(folder / "pupil"))
    run = Workspace(pipeline.run(recipe, "merge"))
    facts = run.manifest["stages"]["adapt"]["facts"]
    taught = json.loads((folder / "teacher-0" / "report.json").read_text("utf-8"))["adapt"]
    assert facts["test"]["accuracy"] >= taught["test"]["accuracy"] - 0.1
    assert facts["test"]["accuracy"] > 0.6, "chance is 0.25"
    rows = [row["text"] for row in data.rows(run.path / "data", "test")]
    said = []
    for name in ("pupil", "teacher-0"):
        merged = folder / name / "merged"
        model, tokenizer = load_merged(merged, TASK.name), tokenizer_in(merged)
        examples = tasks.tokens(tokenizer, rows, max_length=64)[0]
        said.append(forward(model)(tasks.padded(examples, 0))["logits"].argmax(-1))
    assert (said[0] == said[1]).mean() > 0.85


def test_several_teachers_answer_with_the_mean_in_the_datas_order(folder: Path, tmp_path: Path) -> None:
    turned = tmp_path / "models" / "turned"  # the second teacher with its labels the other way round
    shutil.copytree(folder / "teacher-1" / "merged", turned)
    config = json.loads((turned / "config.json").read_text("utf-8"))
    names = list(reversed(tiny.LABELS))
    (turned / "config.json").write_text(
        json.dumps({**config, "id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}})
    )
    both = []
    for teacher in (folder / "teacher-0", turned):
        recipe = tiny.recipe(folder, method="distillation", distillation__teacher=str(teacher), distillation__copies=0)
        scratch = tmp_path / "scratch" / teacher.name
        scratch.mkdir(parents=True)
        both.append(np.stack([row["teacher"] for row in distillation.training(lesson(recipe, folder, scratch)).examples]))
    recipe = tiny.recipe(folder, method="distillation", distillation__teacher=f"{folder / 'teacher-0'},{turned}", distillation__copies=0)
    together = distillation.training(lesson(recipe, folder, tmp_path))
    np.testing.assert_allclose(np.stack([row["teacher"] for row in together.examples]), np.mean(both, axis=0), atol=1e-5)
    model, tokenizer = load_merged(turned, TASK.name), tokenizer_in(turned)
    rows = [row["text"] for row in lesson(recipe, folder, tmp_path).rows]
    own = forward(model)(tasks.padded(tasks.tokens(tokenizer, rows, max_length=64)[0], 0))["logits"]
    np.testing.assert_allclose(both[1], own[:, ::-1], atol=1e-4)


def test_altered_and_unlabelled_texts_are_taught_too_and_once(folder: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("the lamp in the attic\nplay it again\n\nplay it again\n")
    recipe = asked(folder, "teacher-0", distillation__copies=2, distillation__unlabelled=str(more))
    found = distillation.training(lesson(recipe, folder, tmp_path))
    assert len(found.examples) == 40 + 80 + 2
    again = distillation.training(lesson(recipe, folder, tmp_path))
    np.testing.assert_array_equal([row["teacher"] for row in again.examples], [row["teacher"] for row in found.examples])


def test_who_cannot_teach_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    other = tiny.classifier(tmp_path / "other", labels=("lights", "heat"))
    cases = {
        "needs a model to learn from": asked(folder, output=str(output)).model_copy(update={"distillation": Recipe().distillation}),
        "no adapted model at": asked(folder, "nowhere", output=str(output)),
        "not classes": asked(folder, "teacher-0", output=str(output), adapt__class_weights="balanced"),
        "was adapted to text-classification, not to": asked(folder, "teacher-0", output=str(output), task="multi-label-classification"),
    }
    for message, recipe in cases.items():
        with pytest.raises(EdgetuneError, match=message):
            pipeline.run(recipe, "adapt")
        assert not output.exists()
    [teacher] = teachers.named(tiny.recipe(folder, method="distillation", distillation__teacher=str(other)))
    with pytest.raises(EdgetuneError, match="other labels") as caught:
        teacher.order(tiny.LABELS)
    assert "only in the data: door, music" in str(caught.value.details)


def test_another_teacher_is_another_run(folder: Path) -> None:
    with pytest.raises(EdgetuneError, match="another training recipe"):
        pipeline.run(asked(folder, "teacher-1", output=str(folder / "pupil")), "adapt")


def test_a_teacher_that_knows_the_test_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    """One file is cut by the seed: what is test here was learned from there."""
    with pytest.raises(DataError, match=r"teacher-1/merged has learned from \d+ of the \d+ test rows") as caught:
        pipeline.run(asked(folder, "teacher-1", output=str(tmp_path / "run")), "adapt")
    assert "same splits" in str(caught.value.mend) and not (tmp_path / "run" / "checkpoint").exists()


def test_validation_rows_that_a_teacher_knows_are_told(folder: Path) -> None:
    rows = {split: data.rows(folder / "teacher-0" / "data", split) for split in data.SPLITS}
    found = teachers.named(asked(folder, "teacher-0"))
    with progress.collecting() as notes:
        teachers.separate(found, rows)
    assert not notes
    moved = {**rows, "validation": [*rows["validation"], *rows["train"][:3]], "train": rows["train"][3:]}
    with progress.collecting() as notes:
        teachers.separate(found, moved)
    assert f"has learned from 3 of the {len(moved['validation'])} validation rows" in notes[0]
    with progress.collecting() as notes:
        teachers.separate(found, {**moved, "train": rows["train"]})
    assert not notes, "what stands in train as well is no secret"
    plain = tiny.recipe(folder, method="distillation", distillation__teacher=str(folder / "teacher-0" / "merged"))
    teachers.separate(teachers.named(plain), moved)
