"""merge: a plain directory that answers as the adapter did, or a refusal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from edgetune import data, methods, tasks
from edgetune.errors import GateError
from edgetune.methods import full
from edgetune.stages import merge as stage
from edgetune.tasks import text_classification as task

ADAPTERS = [name for name, row in methods.METHODS.items() if row.folder == "adapter" and name != "qlora"]  # 4 bits take seconds
METHODS = ("full", "head", "linear-probe", "few-shot", "reptile", "maml", *ADAPTERS)


@pytest.mark.parametrize("method", METHODS)
def test_a_plain_directory_is_written(toy_run: Callable[[str], Any], method: str) -> None:
    run = toy_run(method)
    names = {path.name for path in run.merged.path.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert not any("adapter" in name for name in names)
    config = json.loads((run.merged.path / "config.json").read_text("utf-8"))
    assert config["id2label"] == {str(i): label for i, label in enumerate(tiny.LABELS)}
    model = AutoModelForSequenceClassification.from_pretrained(run.merged.path)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert AutoTokenizer.from_pretrained(run.merged.path)("play the song")["input_ids"]


@pytest.mark.parametrize("method", METHODS)
def test_it_tells_how_near_it_is(toy_run: Callable[[str], Any], method: str) -> None:
    run = toy_run(method)
    facts = run.merged.facts
    assert facts["max_logit_difference"] <= (1e-5 if method in ADAPTERS else 0)
    assert facts["label_flips"] == 0
    assert facts["rows"] == run.dataset.facts["rows"]["validation"]
    assert (facts["labels"], facts["max_length"]) == (list(tiny.LABELS), 64)
    assert facts["into"] == ("the float base" if method in ADAPTERS else "its own weights")


@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_is_really_folded_in(toy_folder: Path, toy_run: Callable[[str], Any], method: str) -> None:
    from transformers import AutoModel

    base = AutoModel.from_pretrained(toy_folder / "model").state_dict()
    merged = AutoModelForSequenceClassification.from_pretrained(toy_run(method).merged.path).bert.state_dict()
    layer, words = "encoder.layer.0.output.dense.weight", "embeddings.word_embeddings.weight"
    prompted = method in methods.PROMPTS
    assert torch.equal(base[layer], merged[layer]) is prompted
    assert torch.equal(base[words], merged[words][: len(base[words])])
    assert len(merged[words]) - len(base[words]) == (16 if prompted else 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_merged_model_scores_what_adapt_reported(toy_run: Callable[[str], Any], method: str) -> None:
    from edgetune.methods.model import forward, load_merged

    run = toy_run(method)
    tokenizer = AutoTokenizer.from_pretrained(run.merged.path)
    examples = task.encode(data.rows(run.dataset.path, "test"), tokenizer, max_length=64, labels=tiny.LABELS).examples
    found = task.metrics(task.score(forward(load_merged(run.merged.path, "text-classification")), examples, 0), tiny.LABELS)
    assert found == pytest.approx(run.adapted.facts["test"], abs=1e-4)


@pytest.mark.parametrize(
    "breaking",
    [
        lambda model: model.classifier.bias.add_(2e-3),
        lambda model: torch.nn.init.normal_(model.classifier.weight),
        lambda model: model.classifier.weight.copy_(model.classifier.weight[[1, 0, 2, 3]]),
        lambda model: model.classifier.bias.fill_(float("nan")),
    ],
    ids=["a little off", "lost head", "labels in another order", "nan"],
)
def test_a_broken_merge_is_refused(toy_run: Callable[[str], Any], out: Path, monkeypatch: pytest.MonkeyPatch, breaking: Any) -> None:
    original = full.merge

    def merge(*arguments: Any) -> Any:
        made = original(*arguments)
        with torch.no_grad():
            breaking(made.model)
        return made

    monkeypatch.setattr(full, "merge", merge)
    run = toy_run("full")
    with pytest.raises(GateError, match="the merged model differs from the adapter on its base") as raised:
        stage.merge(run.recipe, run.dataset, run.adapted, out)
    assert raised.value.exit_code == 4


def test_an_adapter_left_out_is_refused(toy_run: Callable[[str], Any], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is the base alone."""
    from edgetune.methods import adapters
    from edgetune.methods.model import load_base

    original, run = adapters.merge, toy_run("lora")
    monkeypatch.setattr(adapters, "merge", lambda *a: dataclasses.replace(original(*a), model=load_base(run.recipe, tiny.LABELS)))
    with pytest.raises(GateError):
        stage.merge(run.recipe, run.dataset, run.adapted, out)


def compare(reference: list[list[float]], merged: list[list[float]]) -> tuple[float, int]:
    """Of logits by row."""
    examples = [{"input_ids": [i], "label": 0} for i in range(len(reference))]

    def forward(rows: list[list[float]]) -> Any:
        return lambda given: {"logits": np.array(rows, dtype=np.float32)[given["input_ids"][:, 0]]}

    return stage._compare(forward(reference), forward(merged), examples, tasks.get("text-classification"), 0)


def test_a_flip_counts_where_the_margin_is_clear() -> None:
    assert compare([[1, 0], [0, 1]], [[1, 0], [0, 1]]) == (0, 0)
    assert compare([[0.5, 0.4]], [[0.4, 0.5]]) == (pytest.approx(0.1), 1)
    worst, flips = compare([[0.5, 0.499]], [[0.4995, 0.4996]])
    assert flips == 0 and worst == pytest.approx(6e-4, rel=0.01), "a margin under 2e-3 is no answer"
    assert compare([[1, 0]] * 20, [[1, 0]] * 19 + [[1, 0.25]])[0] == 0.25, "over all batches"


def test_of_a_generator_only_real_positions_count() -> None:
    """Logits [b, s, vocabulary]: what padding says is nobody's answer."""

    examples = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}, {"input_ids": [1], "labels": [1]}]

    def forward(wrong: float) -> Any:
        def said(given: Any) -> Any:
            mask = given["attention_mask"]
            return {"logits": np.stack([np.ones(mask.shape), np.where(mask == 0, wrong, 0.0)], -1).astype(np.float32)}

        return said

    assert stage._compare(forward(0), forward(9), examples, tasks.get("text-generation"), 0) == (0, 0)
