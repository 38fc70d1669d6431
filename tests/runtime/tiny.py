"""Tiny random models as bundles, for the tests of runtime, bundle and stages (each loads it by its path: tests are no package)."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgetune import tasks
from edgetune.bundle.card import Card
from edgetune.bundle.golden import ODD, synthetic
from edgetune.bundle.write import Spec, write
from edgetune.graph import decoder, encoder
from edgetune.graph import export as graphs
from edgetune.target import load

LABELS = ("lights_on", "lights_off", "weather", "music")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def encoder_folder(folder: Path) -> Path:
    """A random BertForSequenceClassification with a WordPiece tokenizer whose file carries truncation and padding."""
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.train_from_iterator(ODD, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    words.enable_truncation(7)
    words.enable_padding(length=9)
    kinds = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **kinds).save_pretrained(folder)
    assert json.loads((folder / "tokenizer.json").read_text())["padding"] is not None
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    config = BertConfig(vocab_size=words.get_vocab_size(), num_labels=len(LABELS), initializer_range=0.5, **sizes)
    config._name_or_path = "/home/someone/private"
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def encoder_graph(folder: Path, path: Path) -> Path:
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    graphs.export(encoder.plan(model, 64), path, 20, 10)
    return path


def decoder_folder(folder: Path) -> Path:
    """A random Llama with grouped heads, a byte-level BPE tokenizer and a ChatML template."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    words.train_from_iterator(ODD, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64}
    config = LlamaConfig(vocab_size=words.get_vocab_size(), initializer_range=0.5, max_position_embeddings=256, **sizes)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = None, 2, 0
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def decoder_graph(folder: Path, path: Path) -> Path:
    from transformers import AutoModelForCausalLM

    graphs.export(decoder.plan(AutoModelForCausalLM.from_pretrained(folder)), path, 20, 10)
    return path


def encoder_spec(merged: Path, graph: Path, **changes) -> Spec:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(merged)
    licences = merged / "licences"
    licences.mkdir(exist_ok=True)
    (licences / "LICENSE").write_text("Apache License 2.0")
    (licences / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    given = {
        "target": load("x86_64"),
        "task": tasks.of("text-classification", ("text",)),
        "scheme": "fp32",
        "graph": graph,
        "suffix": "",
        "merged": merged,
        "labels": LABELS,
        "max_length": 48,
        "confidence": {"temperature": 1.5, "reject_below": 0.3, "chosen_by": "the test"},
        "tolerance": 1e-4,
        "lengths": list(range(3, 103)),
        "golden": synthetic(tokenizer, 110, max_length=48),
        "metrics": {"metric": "accuracy", "baseline": 0.92, "quality": 0.91, "drop": 0.01, "rows": 100},
        "onnxruntime_min": "1.20",
        "generation": None,
        "card": Card("someone/tiny-bert", licences, "", "made-up rows", "cc0-1.0", "full", {"train": 10, "test": 5}, ["A test."]),
    }
    return Spec(**(given | changes))


def decoder_spec(merged: Path, graph: Path, **changes) -> Spec:
    from transformers import AutoTokenizer

    from edgetune.tasks.text_generation import prompt_parts, stop_ids

    tokenizer = AutoTokenizer.from_pretrained(merged)
    prefix, suffix = prompt_parts(tokenizer)
    shape = {"layers": 2, "kv_heads": 2, "head_dim": 8}
    generation = {"prefix": prefix, "suffix": suffix, "stop_ids": list(stop_ids(tokenizer)), "max_new_tokens": 24, **shape}
    given = {
        "target": load("x86_64"),
        "task": tasks.get("text-generation"),
        "scheme": "fp32",
        "graph": graph,
        "suffix": "",
        "merged": merged,
        "labels": None,
        "max_length": 256,
        "confidence": None,
        "tolerance": 1e-4,
        "lengths": [20, 30, 40],
        "golden": synthetic(tokenizer, 110, max_length=180),
        "metrics": {"metric": "perplexity", "baseline": 20.0, "quality": 20.5},
        "onnxruntime_min": "1.20",
        "generation": generation,
        "card": Card("/home/someone/private/tiny-llama"),
    }
    return Spec(**(given | changes))


made: list[tuple[tuple[Path, Path], tuple[Path, Path], Path, Path]] = []


def built(factory: pytest.TempPathFactory) -> tuple[tuple[Path, Path], tuple[Path, Path], Path, Path]:
    """Both models and both bundles, made once for all tests of a session."""
    if not made:
        folder = factory.mktemp("tiny")
        small = encoder_folder(folder / "encoder" / "merged"), folder / "encoder" / "model.onnx"
        large = decoder_folder(folder / "decoder" / "merged"), folder / "decoder" / "model.onnx"
        encoder_graph(*small)
        decoder_graph(*large)
        write(encoder_spec(*small), folder / "classifier")
        write(decoder_spec(*large), folder / "generator")
        made.append((small, large, folder / "classifier", folder / "generator"))
    return made[0]


@pytest.fixture(scope="session")
def encoder_model(tmp_path_factory) -> tuple[Path, Path]:
    """(merged Hugging Face folder, fp32 graph) of a tiny classifier."""
    return built(tmp_path_factory)[0]


@pytest.fixture(scope="session")
def decoder_model(tmp_path_factory) -> tuple[Path, Path]:
    """(merged Hugging Face folder, fp32 graph) of a tiny generator."""
    return built(tmp_path_factory)[1]


@pytest.fixture(scope="session")
def classifier(tmp_path_factory) -> Path:
    """The bundle of the tiny classifier; copy it before changing it."""
    return built(tmp_path_factory)[2]


@pytest.fixture(scope="session")
def generator(tmp_path_factory) -> Path:
    """The bundle of the tiny generator; copy it before changing it."""
    return built(tmp_path_factory)[3]


@pytest.fixture(scope="session")
def specs():
    """encoder_spec and decoder_spec, for bundles that differ."""
    return encoder_spec, decoder_spec
