"""Prompts as entries of the vocabulary: whatever loads the tokenizer puts them first, and what was learned is in the embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conformance import models
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from edgetune.errors import RecipeError
from edgetune.methods import adapters
from edgetune.methods.model import load_tokenizer
from edgetune.recipe import Recipe, load
from edgetune.tasks import text_generation

NAMES = [f"<prompt-{i}>" for i in range(3)]
AROUND = {  # what a tokenizer puts around texts, and the types of the two of a pair
    "template": None,
    "bert": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "roberta": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
}


def recipe(folder: Path, method: str = "prompt-tuning", task: str = "text-classification") -> Recipe:
    return load(None, {"model": str(folder), "task": task, "method": method, "prompt.tokens": 3})


@pytest.mark.parametrize("kind", AROUND)
def test_the_prompt_follows_the_first_special_token(tmp_path: Path, kind: str) -> None:
    plain = tiny.tokenizer(tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").touch()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    if AROUND[kind]:
        plain.backend_tokenizer.post_processor = AROUND[kind]
        plain.save_pretrained(tmp_path / "model")
        settings = json.loads((tmp_path / "model" / "tokenizer_config.json").read_text("utf-8"))
        (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"}))
    made = load_tokenizer(recipe(tmp_path / "model"))
    prompt = made.convert_tokens_to_ids(NAMES)
    assert prompt == [len(plain), len(plain) + 1, len(plain) + 2]
    made.save_pretrained(tmp_path / "saved")
    again, bare = AutoTokenizer.from_pretrained(tmp_path / "saved"), Tokenizer.from_file(str(tmp_path / "saved" / "tokenizer.json"))
    for texts in (("play the song",), ("play the song", "warm light")):
        before = plain(*texts)
        wanted = [before["input_ids"][0], *prompt, *before["input_ids"][1:]]
        assert made(*texts)["input_ids"] == again(*texts)["input_ids"] == bare.encode(*texts).ids == wanted
        assert made(*texts)["token_type_ids"] == [0, 0, 0, *before["token_type_ids"]]
    cut = again("song " * 100, truncation=True, max_length=16)["input_ids"]
    assert len(cut) == 16 and cut[1:4] == prompt and cut[-1] == 3


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = models.decoder(tmp_path_factory.mktemp("decoder"), ["list all files", "find . -name x"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{{ eos_token }}{% endfor %}answer:"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning", "dora", "oft", "ia3"])
def test_a_decoder_answers_the_same_when_merged(decoder: Path, tmp_path: Path, method: str) -> None:
    asked = recipe(decoder, method, "text-generation")
    tokenizer = load_tokenizer(asked)
    prefix, _ = text_generation.prompt_parts(tokenizer)
    ids = torch.tensor([tokenizer(f"{prefix}list all files", add_special_tokens=False)["input_ids"]])
    prompted = method.endswith("tuning")
    assert (ids[0, :3].tolist() == tokenizer.convert_tokens_to_ids(NAMES)) is prompted
    model = adapters.attach(asked, ())
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    before = logits(model, ids)
    torch.manual_seed(0)
    for weight in learning:
        torch.nn.init.normal_(weight, mean=float(method == "ia3"), std=0.3)
    wanted = logits(model, ids)
    assert (wanted - before).abs().max() > 0.01, "the adapter must matter, else equality shows nothing"
    adapters.save(model, tmp_path)
    found = adapters.merge(asked, tmp_path, ())
    assert torch.allclose(logits(found.reference, ids), wanted, atol=1e-6)
    assert (logits(found.model, ids) - wanted).abs().max() <= 1e-4
    assert not any(type(module).__module__.startswith(("peft", "edgetune")) for module in found.model.modules())


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found


def test_a_decoder_without_a_chat_template_is_refused(decoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(decoder)
    tokenizer.chat_template = None
    with pytest.raises(RecipeError, match="has no chat template"):
        adapters.prompts.prompted(tokenizer, recipe(decoder, task="text-generation"))
