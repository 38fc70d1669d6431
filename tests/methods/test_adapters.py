"""Adapters on float and 4-bit bases: what is trained, what survives the disk, and that merging changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from edgetune.errors import ModelError, RecipeError
from edgetune.methods import adapters, bnb
from edgetune.recipe import Recipe, validate
from edgetune.target import isa

LABELS = ("a", "b", "c")
BERT = BertConfig(vocab_size=90, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, initializer_range=0.2)
LLAMA = LlamaConfig(
    vocab_size=90, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    initializer_range=0.2, tie_word_embeddings=True,
)  # fmt: skip
IDS = torch.arange(21).reshape(3, 7)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models as Hugging Face directories."""
    torch.manual_seed(0)
    distil = DistilBertConfig(vocab_size=90, dim=64, hidden_dim=96, n_layers=2, n_heads=4)
    models = {
        "bert": BertForSequenceClassification(BERT).bert,
        "distilbert": DistilBertModel(distil),
        "llama": LlamaForCausalLM(LLAMA),
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)),
    }
    root = tmp_path_factory.mktemp("bases")
    for name, model in models.items():
        model.save_pretrained(root / name)
        (root / name / "tokenizer.json").write_text("{}")
    return {name: root / name for name in models}


def recipe(base: Path, method: str, **keys: Any) -> Recipe:
    task = "text-generation" if base.name in ("llama", "gpt2") else "text-classification"
    return validate({"model": str(base), "task": task, "method": method, "lora": {"rank": 4, **keys}}, where="test")


def labels(base: Path) -> tuple[str, ...]:
    return LABELS if base.name in ("bert", "distilbert") else ()


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Everything that training would change, changed."""
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("method", ["lora", "qlora"])
@pytest.mark.parametrize("name", ["bert", "distilbert", "llama"])
class TestFromAttachToMerge:
    def test_restored_and_merged_answer_as_the_trained_one(self, bases: dict[str, Path], name: str, method: str, tmp_path: Path) -> None:
        asked = recipe(bases[name], method)
        fresh = adapters.attach(asked, labels(bases[name])).eval()
        before = logits(fresh)
        wanted = logits(shaken(fresh))
        assert (wanted - before).abs().max() > 0.05, "the adapter must matter, else equality shows nothing"
        adapters.save(fresh, tmp_path)
        found = adapters.merge(asked, tmp_path, labels(bases[name]))
        assert torch.equal(logits(adapters.restore(asked, tmp_path, labels(bases[name]))), wanted)
        assert torch.equal(logits(found.reference), wanted)
        assert (logits(found.model) - wanted).abs().max() <= 1e-4

    def test_merged_is_a_plain_float_model(self, bases: dict[str, Path], name: str, method: str, tmp_path: Path) -> None:
        asked = recipe(bases[name], method)
        adapters.save(shaken(adapters.attach(asked, labels(bases[name]))), tmp_path / "adapter")
        found = adapters.merge(asked, tmp_path / "adapter", labels(bases[name])).model
        foreign = {type(module).__module__.split(".")[0] for module in found.modules()} & {"peft", "bitsandbytes", "edgetune"}
        assert not foreign
        assert {weight.dtype for weight in found.parameters()} == {torch.float32}
        assert not hasattr(found.config, "quantization_config")
        found.save_pretrained(tmp_path / "merged")
        again = type(found).from_pretrained(tmp_path / "merged").eval()
        assert torch.equal(logits(again), logits(found))

    def test_only_adapters_and_heads_learn(self, bases: dict[str, Path], name: str, method: str, tmp_path: Path) -> None:
        model = adapters.attach(recipe(bases[name], method), labels(bases[name]))
        learning = {weight for weight, value in model.named_parameters() if value.requires_grad}
        whole = {weight for weight in learning if "lora_" not in weight}
        assert len(learning) > len(whole)
        heads = {"bert": {"pooler", "classifier"}, "distilbert": {"pre_classifier", "classifier"}, "llama": set()}[name]
        assert {part for weight in whole for part in weight.split(".")} & {"pooler", "pre_classifier", "classifier", "lm_head"} == heads
        assert all("modules_to_save" in weight for weight in whole)
        assert not any(head in weight for head in (*heads, "lm_head") for weight in learning - whole)


def test_rank_stabilised_scaling(bases: dict[str, Path]) -> None:
    def scaling(**keys: Any) -> float:
        model = adapters.attach(recipe(bases["llama"], "lora", **keys), ())
        return float(model.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"])

    assert scaling(rank=16) == pytest.approx(4)  # alpha 0 is the rank: 16 / sqrt(16)
    assert scaling(rank=16, alpha=8) == pytest.approx(2)
    assert scaling(rank=16, rslora=False) == pytest.approx(1)


def test_named_modules_only(bases: dict[str, Path]) -> None:
    model = adapters.attach(recipe(bases["llama"], "lora", modules="q_proj, v_proj"), ())
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in model.named_parameters() if ".lora_" in name}
    assert adapted == {"q_proj", "v_proj"}


@pytest.mark.parametrize("modules", ["q_prj", ","])
def test_unknown_modules_are_named_with_a_suggestion(bases: dict[str, Path], modules: str) -> None:
    with pytest.raises(RecipeError) as caught:
        adapters.attach(recipe(bases["llama"], "lora", modules=modules), ())
    assert "q_proj" in f"{caught.value.details} {caught.value.mend}"


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_exactly_the_inner_linear_layers_are_in_four_bits(bases: dict[str, Path], name: str) -> None:
    model = adapters.load_base(recipe(bases[name], "qlora"), labels(bases[name]), quantized=True)
    four = {module for module, found in model.named_modules() if isinstance(found, bnb.Linear4bit)}
    plain = {module for module, found in model.named_modules() if type(found) is torch.nn.Linear}
    assert four and plain == ({"classifier", "bert.pooler.dense"} if name == "bert" else {"lm_head"})
    assert not any(weight.requires_grad for weight in model.parameters())
    if name == "llama":
        assert model.lm_head.weight is model.model.embed_tokens.weight


def test_a_model_without_linear_layers_is_refused(bases: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="4 bits"):
        adapters.attach(recipe(bases["gpt2"], "qlora"), ())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 128), (96, 32), (576, 192), (100, 10)])
def test_every_shape_computes_with_the_values_that_dequantising_gives(width: int, height: int, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(width, height, bias=bias)
    four = bnb.Linear4bit(linear).eval()
    x = torch.randn(2, 5, width, requires_grad=True)
    weight = bitsandbytes.functional.dequantize_4bit(four.weight.data, four.weight.quant_state)
    assert weight.shape == linear.weight.shape
    assert (weight - linear.weight).abs().max() <= 0.2 * linear.weight.abs().max()
    expected = torch.nn.functional.linear(x, weight, linear.bias)
    torch.testing.assert_close(four(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(four(x.detach()), expected, atol=1e-5, rtol=1e-5)
    [slope] = torch.autograd.grad(four(x).square().sum(), x)
    [wanted] = torch.autograd.grad(expected.square().sum(), x)
    torch.testing.assert_close(slope, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif("avx512_bf16" not in isa(), reason="bitsandbytes repacks weights only on CPUs with AVX512-BF16")
@pytest.mark.parametrize("name", ["bert", "llama"])
class TestEvaluatingFirstChangesNothing:
    """bitsandbytes' trap: the first evaluation on such a CPU repacks the weights, and gradients and merges are wrong from then on."""

    def gradients(self, base: Path, *, evaluate_first: bool) -> dict[str, torch.Tensor]:
        model = shaken(adapters.attach(recipe(base, "qlora", dropout=0.0), labels(base)))
        if evaluate_first:
            logits(model)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.train()
        model(input_ids=IDS).logits.square().mean().backward()
        return {weight: value.grad for weight, value in model.named_parameters() if value.grad is not None}

    def test_gradients(self, bases: dict[str, Path], name: str) -> None:
        after, alone = (self.gradients(bases[name], evaluate_first=first) for first in (True, False))
        assert after.keys() == alone.keys() and any("lora_" in weight for weight in after)
        for weight, slope in alone.items():
            assert slope.abs().max() > 0
            torch.testing.assert_close(after[weight], slope, atol=1e-6, rtol=1e-4)

    def test_dequantised_weights(self, bases: dict[str, Path], name: str) -> None:
        one, other = (adapters.load_base(recipe(bases[name], "qlora"), labels(bases[name]), quantized=True).eval() for _ in range(2))
        logits(one)
        again = dict(bnb.dequantize(one).named_parameters())
        for weight, value in bnb.dequantize(other).named_parameters():
            assert torch.equal(again[weight], value)


def test_autocast_computes_in_its_dtype() -> None:
    four = bnb.Linear4bit(torch.nn.Linear(64, 64))
    with torch.autocast("cpu", torch.bfloat16):
        assert four(torch.randn(2, 64)).dtype == torch.bfloat16
    assert four(torch.randn(2, 64)).dtype == torch.float32
