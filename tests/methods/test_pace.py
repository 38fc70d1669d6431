"""Which weights are trained when, and how fast: depths of real architectures, groups of the optimizer, what stays untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import (
    AlbertConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    LlamaConfig,
    ModernBertConfig,
)

from edgetune import pipeline
from edgetune.errors import RecipeError
from edgetune.methods import loop, pace
from edgetune.methods.pace import Pace
from edgetune.recipe import Recipe, load

SIZES: dict[str, Any] = {"vocab_size": 90, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "modernbert": ModernBertConfig(**SIZES, pad_token_id=0),
    "distilbert": DistilBertConfig(vocab_size=90, dim=32, hidden_dim=64, n_layers=3, n_heads=4),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2),
}
NAMES = {  # a weight at depths 0, 1, 3 and 4
    "bert": ("bert.embeddings.word_embeddings", "bert.encoder.layer.0.", "bert.encoder.layer.2.", "classifier"),
    "modernbert": ("model.embeddings.tok_embeddings", "model.layers.0.", "model.layers.2.", "model.final_norm"),
    "distilbert": ("distilbert.embeddings.", "distilbert.transformer.layer.0.", "distilbert.transformer.layer.2.", "pre_classifier"),
    "llama": ("model.embed_tokens", "model.layers.0.", "model.layers.2.", "lm_head"),
}


def meta(name: str) -> Any:
    auto = AutoModelForCausalLM if name == "llama" else AutoModelForSequenceClassification
    with torch.device("meta"):
        return auto.from_config(CONFIGS[name])


def recipe(**keys: Any) -> Recipe:
    return load(None, {"task": "text-classification", "method": "full", **{key.replace("__", "."): value for key, value in keys.items()}})


@pytest.mark.parametrize("name", CONFIGS)
def test_depths(name: str) -> None:
    found = pace.depths(meta(name))
    assert set(found.values()) == {0, 1, 2, 3, 4}
    for depth, start in zip((0, 1, 3, 4), NAMES[name], strict=True):
        assert {found[weight] for weight in found if weight.startswith(start)} == {depth}


def test_layers_that_are_one_and_the_same_are_refused() -> None:
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(AlbertConfig(**SIZES, embedding_size=16))
    with pytest.raises(RecipeError, match="layers of a albert model apart"):
        pace.depths(model)


def test_the_last_layers_and_the_head_alone() -> None:
    model = meta("bert")
    pace.freeze(recipe(adapt__layers=1), model)
    trained = {name.partition("encoder.")[2][:7] or name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {"layer.2", "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}


def test_each_layer_learns_slower_than_the_next_one_up() -> None:
    model = meta("bert")
    found = pace.of(recipe(adapt__layer_decay=0.5), model, 5)
    assert not found.opens
    of = {name: rate for name, rate in found.rates.items() if name.endswith("weight")}
    assert of["classifier.weight"] == 1
    assert of["bert.encoder.layer.2.output.dense.weight"] == 0.5
    assert of["bert.encoder.layer.0.output.dense.weight"] == 0.125
    assert of["bert.embeddings.word_embeddings.weight"] == 0.0625
    settings = loop.Settings(1, 8, 1, 1e-3, 0, 0.01, 1, 0, 0, 0, 0, 0)
    groups = loop._optimizer(dict(model.named_parameters()), settings, found).param_groups
    assert {group["lr"] for group in groups} == {1e-3 * 0.5**i for i in range(5)}
    assert {group["weight_decay"] for group in groups} == {0.01, 0.0}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_loraplus_is_that_of_peft() -> None:
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_config(CONFIGS["bert"])
    model = get_peft_model(base, LoraConfig(target_modules=["query", "value"]))
    theirs = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=8)
    found = pace.of(recipe(method="lora", lora__plus_ratio=8), model, 5)
    settings = loop.Settings(1, 8, 1, 1e-3, 0, 0.01, 1, 0, 0, 0, 0, 0)
    ours = loop._optimizer({n: w for n, w in model.named_parameters() if w.requires_grad}, settings, found)
    asked = [{id(weight): group["lr"] for group in made.param_groups for weight in group["params"]} for made in (theirs, ours)]
    assert asked[0] == asked[1] and set(asked[0].values()) == {1e-3, 8e-3}


class TestGradualUnfreezing:
    ASKED = recipe(adapt__gradual_unfreezing=True)

    def run(self, toy: Any, scratch: Path, epochs: int = 4, **changes: Any) -> tuple[Any, dict[str, torch.Tensor]]:
        model = toy.model()
        before = {name: weight.clone() for name, weight in model.named_parameters()}
        loop.train(
            model, toy.problem(), toy.settings(epochs=epochs, **changes), toy.device, scratch, pace=pace.of(self.ASKED, model, epochs)
        )
        return model, before

    @pytest.mark.parametrize("epochs", [1, 2, 4])
    def test_what_is_not_reached_stays_as_it_was(self, toy: Any, tmp_path: Path, epochs: int) -> None:
        """Two layers, so the head, layer 1, layer 0 and the embeddings are reached in this order."""
        model, before = self.run(toy, tmp_path, epochs)
        found = pace.depths(model)
        changed = {found[name] for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
        assert min(changed) >= 4 - epochs and 3 in changed
        assert all(weight.requires_grad for weight in model.parameters())

    def test_killed_and_resumed_it_ends_the_same(self, toy: Any, tmp_path: Path, same: Any) -> None:
        whole, _ = self.run(toy, tmp_path / "whole", 3)
        model, problem, settings = toy.model(), toy.problem(), toy.settings(epochs=3)
        how = pace.of(self.ASKED, model, 3)
        loop.train(model, problem, settings, toy.device, tmp_path / "cut", lambda state: state.epoch == 2, how)
        again = toy.model()
        loop.train(again, problem, settings, toy.device, tmp_path / "cut", pace=how)
        assert same(whole, again)


def test_the_defaults_add_nothing() -> None:
    assert pace.of(recipe(), meta("bert"), 5) == Pace()


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"adapt__layers": 3}, "adapt.layers = 3, but the model has 2 layers"),
        ({"method": "lora", "adapt__layers": 1}, "adapt.layers: for method full alone"),
        ({"method": "auto", "adapt__layer_decay": 0.9}, "adapt.layer_decay: for method full alone"),
        ({"lora__plus_ratio": 4.0}, "lora.plus_ratio is for the two matrices"),
        ({"method": "prefix-tuning"}, "prefix-tuning is not offered: it trains keys and values"),
        ({"method": "adalora"}, "adalora is not offered"),
        ({"method": "ia3"}, "method ia3 does not fit .*: which layers of a distilbert model"),
    ],
)
def test_bad_requests_leave_nothing_behind(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    tiny.tokenizer(tmp_path / "model")
    kind = DistilBertConfig(dim=32, hidden_dim=64, n_layers=2, n_heads=4) if "ia3" in keys.values() else None
    (kind or BertConfig(**tiny.SIZES)).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").touch()  # which nobody reads
    tiny.table(tmp_path / "data.csv", tiny.sentences(8))
    asked = tiny.recipe(tmp_path, **keys)
    with pytest.raises(RecipeError, match=said):
        pipeline.run(asked, "adapt")
    assert not Path(asked.output).exists()
