"""compress: smaller models of a run, distilled on its texts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoTokenizer

from edgetune.artifact import Artifact, Merged
from edgetune.compress import Size
from edgetune.errors import DataError, ModelError, RecipeError
from edgetune.stages import compress as stage


@pytest.fixture(scope="module")
def run(toy_run: Callable[[str], Any]) -> Any:
    return toy_run("full")


def recipe(run: Any, **keys: Any) -> Any:
    return tiny.recipe(Path(run.recipe.model).parent, **{"compress__learning_rate": 5e-3, **keys})


@pytest.fixture(scope="module")
def taught(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("texts")
    return Artifact(out, "texts", stage.teach(recipe(run), run.dataset, [run.merged], out))


def test_the_texts_are_the_training_rows_and_altered_ones(run: Any, taught: Artifact) -> None:
    texts = json.loads((taught.path / "texts.json").read_text("utf-8"))
    own = run.dataset.facts["rows"]["train"]
    assert taught.facts == {"texts": len(texts), "training": own, "altered": len(texts) - own, "unlabelled": 0, "teachers": 1}
    assert len(texts) > 2 * own
    assert np.load(taught.path / "answers.npy").shape == (len(texts), len(run.merged.facts["labels"]))
    held_out = {row["text"] for split in ("validation", "test") for row in stage.data.rows(run.dataset.path, split)}
    assert not held_out & {text for (text,) in texts[:own]}


def test_a_student_answers_like_its_teacher(run: Any, taught: Artifact, out: Path) -> None:
    facts = stage.compress(recipe(run), run.dataset, run.merged, taught, Size(layers=1, feed_forward=32), out)
    config = AutoConfig.from_pretrained(out)
    assert (config.num_hidden_layers, config.intermediate_size) == (1, 32)
    assert config.id2label == dict(enumerate(run.merged.facts["labels"]))
    assert facts["labels"] == run.merged.facts["labels"] and facts["max_length"] == run.merged.facts["max_length"]
    best = max(epoch["accuracy"] for epoch in facts["history"])
    assert best > run.adapted.facts["validation"]["accuracy"] - 0.15
    assert (out / "tokenizer.json").is_file()


def test_a_smaller_student_begins_as_the_one_before(run: Any, taught: Artifact, out: Path, tmp_path: Path) -> None:
    size = Size(vocabulary=10, feed_forward=32, at_least_spelling=True)
    before = Merged(out, "before", stage.compress(recipe(run), run.dataset, run.merged, taught, size, out))
    (second := tmp_path / "second").mkdir()
    still = recipe(run, compress__learning_rate=1e-12, compress__epochs=1)
    facts = stage.compress(still, run.dataset, before, taught, replace(size, layers=1), second)
    assert {name: facts[name] for name in ("vocabulary", "adapted", "labels")} == {
        name: before.facts[name] for name in ("vocabulary", "adapted", "labels")
    }
    learned, begun = (load_file(place / "model.safetensors") for place in (out, second))
    layer = [name for name in begun if ".layer.0." in name]
    assert layer and all(np.allclose(learned[name], begun[name], atol=1e-6) for name in layer)


def test_a_vocabulary_alone_is_not_trained(run: Any, out: Path) -> None:
    before = len(AutoTokenizer.from_pretrained(run.merged.path))
    facts = stage.compress(recipe(run), run.dataset, run.merged, None, Size(vocabulary=before - 5, at_least_spelling=True), out)
    assert facts["vocabulary"]["entries"] < before and "history" not in facts
    assert AutoConfig.from_pretrained(out).vocab_size == facts["vocabulary"]["entries"]


def test_a_vocabulary_that_cannot_spell_is_refused_when_asked_for_and_enlarged_when_chosen(run: Any, out: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        stage.compress(recipe(run), run.dataset, run.merged, None, Size(vocabulary=10), out)
    (tmp_path / "chosen").mkdir()
    facts = stage.compress(recipe(run), run.dataset, run.merged, None, Size(vocabulary=10, at_least_spelling=True), tmp_path / "chosen")
    assert facts["vocabulary"]["entries"] > 10


def test_sizes(run: Any) -> None:
    assert stage.sizes(recipe(run), run.merged) == (Size(),)
    assert stage.sizes(recipe(run, compress__layers=1), run.merged) == (Size(layers=1),)
    assert len(stage.sizes(recipe(run, export__fit=True), run.merged)) > 2
    with pytest.raises(RecipeError, match="text-generation"):
        stage.sizes(recipe(run, export__fit=True).model_copy(update={"task": "text-generation"}), run.merged)


def test_more_layers_than_there_are(run: Any, taught: Artifact, out: Path) -> None:
    with pytest.raises(ModelError, match=r"compress\.layers = 9"):
        stage.compress(recipe(run), run.dataset, run.merged, taught, Size(layers=9), out)


def test_unlabelled_texts_join(run: Any, out: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.txt"
    more.write_text("a lamp by the door\n\nplay it\nplay it\n", "utf-8")
    facts = stage.teach(recipe(run, compress__unlabelled=str(more), compress__copies=0), run.dataset, [run.merged], out)
    assert facts["unlabelled"] == 2 and facts["altered"] == 0
    assert json.loads((out / "texts.json").read_text("utf-8"))[-2:] == [["a lamp by the door"], ["play it"]]
    with pytest.raises(DataError, match="nothing at"):
        stage.teach(recipe(run, compress__unlabelled=str(tmp_path / "none.txt")), run.dataset, [run.merged], out)


@pytest.mark.parametrize(("lost", "rows", "hopeless"), [(0.0, 400, False), (0.02, 400, False), (0.04, 400, True), (0.04, 40, False)])
def test_smaller_ones_are_not_made_where_a_larger_one_lost_too_much(lost: float, rows: int, hopeless: bool) -> None:
    assert stage.hopeless({"lost": lost, "watched": rows}, 0.01) is hopeless
    assert not stage.hopeless({}, 0.01), "a vocabulary alone is watched on nothing"


def test_tasks_that_answer_word_by_word_are_refused(run: Any) -> None:
    for task in ("token-classification", "question-answering", "fill-mask", "intent-and-slots"):
        with pytest.raises(RecipeError, match=f"not for {task}.*whole text"):
            stage.sizes(recipe(run, compress__layers=1).model_copy(update={"task": task}), run.merged)
