"""All weights, or the head alone: what is trained, saved and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig, RobertaConfig

from edgetune.errors import ModelError
from edgetune.methods import full
from edgetune.recipe import Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    tiny.bert(tmp_path / "model")
    return tiny.recipe(tmp_path)


def test_the_labels_are_in_the_config(recipe: Recipe) -> None:
    model = full.attach(recipe, ["b", "a", "c"])
    assert model.config.id2label == {0: "b", 1: "a", 2: "c"}
    assert model.config.label2id == {"b": 0, "a": 1, "c": 2}
    assert model.classifier.out_features == 3
    assert model.dtype == torch.float32


def test_a_new_head_comes_from_the_seed(recipe: Recipe) -> None:
    heads = [full.attach(recipe.model_copy(update={"seed": seed}), ["a", "b"]).classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


def test_what_was_saved_is_restored(recipe: Recipe, tmp_path: Path) -> None:
    model = full.attach(recipe, ["a", "b"])
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    (tmp_path / "saved").mkdir()
    full.save(model, tmp_path / "saved")
    again = full.restore(recipe, tmp_path / "saved", ["a", "b"])
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
    assert not again.training
    merged = full.merge(recipe, tmp_path / "saved", ["a", "b"])
    assert all(torch.equal(weight, merged.model.state_dict()[name]) for name, weight in model.state_dict().items())
    assert merged.model is not merged.reference


def test_half_precision_weights_become_float32(recipe: Recipe, tmp_path: Path) -> None:
    from transformers import AutoModel

    AutoModel.from_pretrained(recipe.model).half().save_pretrained(recipe.model)
    assert {weight.dtype for weight in full.attach(recipe, ["a", "b"]).parameters()} == {torch.float32}


CONFIGS: dict[str, Any] = {
    "bert": BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=300),
    "distilbert": DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=300),
    "roberta": RobertaConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=300),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_head_trains_what_comes_after_the_encoder(tmp_path: Path, kind: str) -> None:
    """The head of every family is found by name: nothing of it stays random, nothing of the base is trained."""
    model = AutoModelForSequenceClassification.from_config(CONFIGS[kind])
    tiny.tokenizer(tmp_path / "model")
    model.base_model.save_pretrained(tmp_path / "model")
    made = full.attach(tiny.recipe(tmp_path, method="head"), ["a", "b"])
    trained = {name for name, weight in made.named_parameters() if weight.requires_grad}
    outside = {name for name, _ in made.named_parameters() if not name.startswith(f"{made.base_model_prefix}.")}
    assert outside <= trained
    assert all("pooler" in name for name in trained - outside)
    assert {name for name, weight in full.attach(tiny.recipe(tmp_path), ["a", "b"]).named_parameters() if not weight.requires_grad} == set()


def test_a_model_that_cannot_be_loaded(recipe: Recipe) -> None:
    path = Path(recipe.model) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot load"):
        full.attach(recipe, ["a", "b"])
