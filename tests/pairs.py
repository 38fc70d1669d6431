"""Tiny encoder-decoder models, taught for a moment, as Hugging Face directories and as bundles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("red", "green", "blue", "old", "new", "big", "cat", "dog", "house", "tree")
ORDER = tuple(word[::-1] for word in WORDS)  # what each becomes, in a sentence that is turned round
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
PAD, START, END = 0, 1, 2
SIZES = {"d_model": 32, "decoder_layers": 2, "encoder_layers": 1}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
IDS = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
FAMILIES = ("t5", "bart", "marian")
LENGTH = 32


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Words, and the same words backwards, from the last to the first."""
    random = np.random.default_rng(seed)
    picked = [random.integers(0, len(WORDS), random.integers(2, 7)) for _ in range(count)]
    return [{"source": " ".join(WORDS[i] for i in one), "target": " ".join(ORDER[i] for i in reversed(one))} for one in picked]


def build(family: str) -> Any:
    """The model of its config, with random weights."""
    import transformers

    torch.manual_seed(0)
    size = len(SPECIAL) + len(WORDS) + len(ORDER)
    if family == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
        return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=size, decoder_start_token_id=PAD, **sizes, **IDS))
    kinds: dict[str, tuple[Any, Any, int]] = {
        "bart": (transformers.BartForConditionalGeneration, transformers.BartConfig, END),
        "marian": (transformers.MarianMTModel, transformers.MarianConfig, PAD),
    }
    model, config, start = kinds[family]
    return model(config(vocab_size=size, decoder_start_token_id=start, max_position_embeddings=LENGTH, **SIZES, **HEADS, **IDS))


def folder(family: str, place: Path, steps: int = 60) -> Path:
    """`build(family)` after `steps` of training on `rows`, with a tokenizer of whole words."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    from edgetune.tasks import inputs, text2text_generation

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIAL, *WORDS, *ORDER))}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    first = "" if family != "bart" else "<s> "
    words.post_processor = processors.TemplateProcessing(single=f"{first}$A </s>", special_tokens=[("<s>", START), ("</s>", END)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    model = build(family)
    model.save_pretrained(place)
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=LENGTH, **names).save_pretrained(place)
    examples = text2text_generation.encode(rows(64), AutoTokenizer.from_pretrained(place), max_length=LENGTH).examples
    batch = {name: torch.from_numpy(array) for name, array in text2text_generation.collate(examples, PAD).items()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(steps):
        text2text_generation.loss(model(**inputs(batch)), batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(place)
    return place


def graph(place: Path, path: Path) -> Path:
    """The two float graphs of the model in `place`, the decoder's beside `path`; not compared with PyTorch."""
    from transformers import AutoModelForSeq2SeqLM

    from edgetune.graph import DECODER, export, seq2seq

    for plan, part in zip(seq2seq.plans(AutoModelForSeq2SeqLM.from_pretrained(place)), (path, path.with_name(DECODER)), strict=True):
        export._dynamo(plan, part, 20)
        export._pin(part, plan, 20, 10)
    return path


def bundle(place: Path, path: Path, out: Path, **settings: Any) -> Path:
    """A bundle around the graphs at `path`; `settings` are of the model's GenerationConfig."""
    from transformers import AutoTokenizer, GenerationConfig

    from edgetune import tasks
    from edgetune.bundle.card import Card
    from edgetune.bundle.write import Spec, write
    from edgetune.target import load
    from edgetune.tasks.text2text_generation import search_settings

    config = GenerationConfig.from_pretrained(place)
    config.update(**settings)
    found, ignored = search_settings(AutoTokenizer.from_pretrained(place), config)
    assert not ignored
    spec = Spec(
        target=load("x86_64"),
        task=tasks.get("text2text-generation"),
        scheme="fp32",
        graph=path,
        suffix="",
        merged=place,
        labels=None,
        max_length=LENGTH,
        confidence=None,
        tolerance=1e-3,
        lengths=[5, 6, 7],
        golden=list(sources(100)),
        metrics={"metric": "perplexity", "baseline": 2.0, "quality": 2.0},
        onnxruntime_min="1.20",
        generation=found,
        card=Card("tiny"),
    )
    write(spec, out)
    return out


def sources(count: int) -> Iterator[str]:
    yield from (row["source"] for row in rows(count, seed=1))
