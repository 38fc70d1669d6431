"""Smaller models that learn from other runs than their own: several answer together, and none that knows the test rows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgetune import data, pipeline, progress, tasks
from edgetune.artifact import Dataset, Merged
from edgetune.errors import DataError, RecipeError
from edgetune.methods.model import forward, load_merged, tokenizer_in
from edgetune.pipeline import ensemble
from edgetune.stages import compress as stage
from edgetune.workspace import Workspace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on the same splits."""
    place = tmp_path_factory.mktemp("several")
    tiny.bert(place / "model")
    rows = tiny.sentences(300)
    for split, some in (("train", rows[:200]), ("validation", rows[200:250]), ("test", rows[250:])):
        (place / "data").mkdir(exist_ok=True)
        tiny.table(place / "data" / f"{split}.csv", some)
    for seed in (0, 1):
        pipeline.run(recipe(place, output=str(place / f"run-{seed}"), seed=seed), "merge")
    return place


def recipe(place: Path, **keys: Any) -> Any:
    return tiny.recipe(place, **{"data__path": str(place / "data"), "adapt__learning_rate": 5e-3, "compress__copies": 1, **keys})


def teach(place: Path, out: Path, *names: str) -> tuple[np.ndarray, dict[str, Any]]:
    """What is taught of the first run, by those named."""
    run = Workspace(place / "run-0")
    dataset, merged = run.finished("prepare", Dataset, "data"), run.finished("merge", Merged, "merged")
    assert dataset and merged
    out.mkdir()
    facts = stage.teach(recipe(place, compress__teacher=",".join(str(place / name) for name in names)), dataset, [merged], out)
    return np.load(out / "answers.npy"), facts


def test_several_answer_together(folder: Path, tmp_path: Path) -> None:
    own, facts = teach(folder, tmp_path / "own")
    first, alone = teach(folder, tmp_path / "first", "run-0")
    second, _ = teach(folder, tmp_path / "second", "run-1")
    both, two = teach(folder, tmp_path / "both", "run-0", "run-1")
    np.testing.assert_allclose(first, own, atol=1e-5)
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-5)
    assert np.abs(first - second).max() > 0.1 and [one["teachers"] for one in (facts, alone, two)] == [1, 1, 2]


def test_an_export_learns_from_them_and_again_when_they_change(folder: Path) -> None:
    keys = {"output": str(folder / "run-0"), "compress__layers": 1, "compress__learning_rate": 5e-3, "export__max_drop": 1.0}
    counts, answers = [], []
    for names in (("run-0", "run-1"), ("run-0", "run-1"), (), ("run-1",)):
        asked = recipe(folder, **keys, compress__teacher=",".join(str(folder / name) for name in names))
        run = Workspace(pipeline.run(asked, "export"))
        counts.append(run.manifest["stages"]["teach"]["facts"]["teachers"])
        answers.append((run.path / "compressed" / "texts" / "answers.npy").read_bytes())
    assert counts == [2, 2, 1, 1]
    assert answers[0] == answers[1] and len(set(answers)) == 3


def test_an_ensemble_of_other_seeds_teaches(folder: Path) -> None:
    keys = {"output": str(folder / "run-1"), "seed": 1, "compress__layers": 1, "compress__learning_rate": 5e-3, "export__max_drop": 1.0}
    run = Workspace(pipeline.run(recipe(folder, **keys, compress__ensemble=2), "export"))
    stages = run.manifest["stages"]
    assert stages["teach"]["facts"]["teachers"] == 2 and "ensemble:2" not in stages
    assert "learnt from the adapted one and 1 other of other seeds" in " ".join(
        re.sub("<[^>]*>", "", (run.path / "report.html").read_text("utf-8")).split()
    )
    texts = [tuple(asked) for asked in json.loads((run.path / "compressed" / "texts" / "texts.json").read_text("utf-8"))]
    said = np.load(run.path / "compressed" / "texts" / "answers.npy")
    both = [answers(run.path / place, texts) for place in ("merged", "ensemble/1/merged")]
    np.testing.assert_allclose(said, np.mean(both, axis=0), atol=1e-4)
    assert np.abs(both[0] - both[1]).max() > 0.1, "another seed is another model"
    with progress.collecting() as notes:
        pipeline.run(recipe(folder, **keys, compress__ensemble=2), "export")
    assert {"ensemble:1: up to date", "teach: up to date"} <= set(notes)


def answers(model: Path, texts: list[tuple[str, ...]]) -> np.ndarray:
    tokenizer = tokenizer_in(model)
    examples = tasks.tokens(tokenizer, *map(list, zip(*texts, strict=True)), max_length=64)[0]
    return forward(load_merged(model, "text-classification"))(tasks.padded(examples, tokenizer.pad_token_id))["logits"]


@pytest.mark.parametrize(
    ("keys", "seconds", "count", "told"),
    [
        ({"export__fit": True}, 20.0, 3, ""),
        ({"export__fit": True}, 601.0, 1, ""),
        ({}, 599.0, 3, ""),
        ({"compress__ensemble": 4}, 4000.0, 4, ""),
        ({"export__fit": True, "method": "linear-probe"}, 2.0, 1, ""),
        ({"method": "linear-probe", "compress__ensemble": 2}, 2.0, 1, "gives the same model with every seed"),
        ({"augment__kinds": "typos", "compress__ensemble": 2}, 2.0, 1, "with made rows"),
        ({"task": "sentence-similarity", "compress__ensemble": 2}, 2.0, 1, "do not answer together"),
        ({"method": "none", "compress__ensemble": 2}, 2.0, 1, "trained elsewhere"),
    ],
)
def test_how_many_teach(tmp_path: Path, keys: dict[str, Any], seconds: float, count: int, told: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": {"adapt": {"facts": {"seconds": seconds}}}}), "utf-8")
    asked = recipe(tmp_path, **{"compress__ensemble": None, **keys})
    with progress.collecting() as notes:
        assert ensemble._count(Workspace(tmp_path), asked) == count
    assert told in " ".join(notes) and bool(notes) is bool(told)


def test_who_cannot_teach_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no adapted model at"):
        pipeline.run(recipe(folder, output=str(tmp_path / "new"), compress__teacher=str(tmp_path)), "export")
    with pytest.raises(RecipeError, match=r"compress.teacher is for .*text-classification, and not for token-classification"):
        pipeline.run(
            recipe(folder, output=str(tmp_path / "new"), task="token-classification", compress__teacher=str(folder / "run-0")), "export"
        )
    assert not (tmp_path / "new").exists()
    test = {row["text"] for row in data.rows(folder / "run-0" / "data", "test")}
    rows = [(text, label) for text, label in tiny.sentences(300) if text in test]
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        tiny.table(
            tmp_path / "data" / f"{split}.csv", [*rows, *tiny.sentences(100, seed=7)] if split == "train" else tiny.sentences(60, seed=8)
        )
    pipeline.run(recipe(folder, output=str(tmp_path / "knows"), data__path=str(tmp_path / "data"), data__on_bad_row="drop"), "merge")
    with pytest.raises(DataError, match=r"has learned from .* test rows"):
        teach(folder, tmp_path / "out", str(tmp_path / "knows"))
