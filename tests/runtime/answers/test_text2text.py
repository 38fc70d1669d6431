"""Texts made of texts: greedily and with beams, token for token what transformers' `generate` gives for a batch of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pairs
import pytest
import torch

from edgetune.runtime.verify import verify
from edgetune.runtime.worker import Bundle, BundleError

PROMPTS = list(pairs.sources(12))
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 4},
    "two beams, short ones": {"num_beams": 2, "length_penalty": 0.2},
    "long ones": {"num_beams": 4, "length_penalty": 2.0},
    "no penalty": {"num_beams": 3, "length_penalty": 0.0},
    "the longer the worse": {"num_beams": 3, "length_penalty": -0.2},
    "early": {"num_beams": 4, "early_stopping": True, "length_penalty": 1.5},
    "never early": {"num_beams": 4, "early_stopping": "never", "length_penalty": 1.2},
    "cut": {"num_beams": 4, "max_new_tokens": 3},
    "an end is forced": {"num_beams": 4, "max_new_tokens": 4, "forced_eos_token_id": pairs.END},
    "a start is forced": {"num_beams": 2, "forced_bos_token_id": 7},
    "a start is forced, greedily": {"num_beams": 1, "forced_bos_token_id": 7, "forced_eos_token_id": pairs.END, "max_new_tokens": 3},
    "nothing twice": {"num_beams": 4, "no_repeat_ngram_size": 2},
    "at least": {"num_beams": 3, "min_length": 6, "bad_words_ids": [[5], [9]]},
    "at least, greedily": {"num_beams": 1, "min_new_tokens": 7, "no_repeat_ngram_size": 1, "suppress_tokens": [20]},
}


@pytest.fixture(scope="module", params=pairs.FAMILIES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(Hugging Face folder, bundle)"""
    place = tmp_path_factory.mktemp(request.param)
    model = pairs.folder(request.param, place / "model", steps=40)
    return model, pairs.bundle(model, pairs.graph(model, place / "model.onnx"), place / "bundle")


def searched(made: tuple[Path, Path], place: Path, settings: dict[str, Any]) -> tuple[list[list[int]], list[dict[str, Any]]]:
    """(what transformers says to all PROMPTS in one batch, what run.py says to each)."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

    from edgetune.tasks.text2text_generation import search_settings

    folder, bundle = made
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    config = GenerationConfig.from_pretrained(folder)
    config.update(**{"max_new_tokens": 12, **settings})
    found, ignored = search_settings(tokenizer, config)
    assert not ignored
    copy = Path(shutil.copytree(bundle, place / "bundle"))
    facts = json.loads((copy / "edgetune.json").read_text())
    (copy / "edgetune.json").write_text(json.dumps({**facts, "generation": found}))
    batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.inference_mode():
        expected = model.generate(**batch, generation_config=config, do_sample=False)[:, 1:].tolist()
    opened = Bundle(copy)
    return expected, [opened.generate(prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("how", SEARCHES)
def test_token_for_token(made: tuple[Path, Path], how: str, tmp_path: Path) -> None:
    expected, found = searched(made, tmp_path, SEARCHES[how])
    for ids, answer in zip(expected, found, strict=True):
        said = answer["tokens"] + [pairs.END] * answer["finished"]
        assert said == ids[: len(said)]
        assert set(ids[len(said) :]) <= {pairs.PAD, pairs.END}, "what follows is padding"
    assert len({tuple(answer["tokens"]) for answer in found}) > 2, "what is asked matters"


def test_searches_differ(made: tuple[Path, Path], tmp_path: Path) -> None:
    """A search that looks at one hypothesis would pass a test whose model is always sure."""
    said = {}
    for how in ("greedy", "beams", "the longer the worse", "long ones"):
        (tmp_path / how).mkdir()
        said[how] = [tuple(answer["tokens"]) for answer in searched(made, tmp_path / how, SEARCHES[how])[1]]
    assert said["beams"] != said["greedy"]
    assert said["the longer the worse"] != said["long ones"]


def test_the_bundle_says_the_same_elsewhere(made: tuple[Path, Path]) -> None:
    _, bundle = made
    found = verify(bundle)["golden"]
    assert found["passed"] and found["completions"]["rows"] > 10
    assert {path.name for path in (bundle / "onnx").iterdir()} == {"encoder_model.onnx", "decoder_model_merged.onnx"}


def test_beams_are_asked_for(made: tuple[Path, Path]) -> None:
    opened = Bundle(made[1])
    shown: list[str] = []
    one, four = (opened.generate(PROMPTS[0], num_beams=beams, on_text=shown.append) for beams in (1, 4))
    assert "".join(shown) == one["text"] + four["text"]
    assert opened.generate(PROMPTS[0], temperature=1.0, seed=1) == opened.generate(PROMPTS[0], temperature=1.0, seed=1)
    with pytest.raises(BundleError, match="one of the two"):
        opened.generate(PROMPTS[0], temperature=1.0, num_beams=4)
    assert opened.predict([" ".join(pairs.WORDS * 5)])[0]["cut"]


def test_logits_of_given_tokens(made: tuple[Path, Path]) -> None:
    """Teacher forcing, several rows in a pass: each as alone, and as PyTorch says."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    folder, bundle = made
    tokenizer, model, opened = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), Bundle(bundle)
    rows = [{"input_ids": tokenizer(text)["input_ids"], "decoder_input_ids": [0, *range(4, 4 + i)]} for i, text in enumerate(PROMPTS[:3])]
    together, alone = opened.outputs(rows)["logits"], opened.alone(rows)["logits"]
    for i, row in enumerate(rows):
        size = len(row["decoder_input_ids"])
        with torch.inference_mode():
            said = model(**{name: torch.tensor([ids]) for name, ids in row.items()}).logits[0].numpy()
        np.testing.assert_allclose(together[i, :size], said, atol=1e-4)
        np.testing.assert_allclose(alone[i, :size], said, atol=1e-4)
