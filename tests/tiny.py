"""A tiny random BERT with a real WordPiece tokenizer, and a toy problem that it learns within seconds."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

from edgetune.recipe import Recipe, load

WORDS = {
    "lights": ("lamp", "light", "bulb", "dark"),
    "heat": ("warm", "cold", "heater", "degrees"),
    "music": ("song", "volume", "album", "play"),
    "door": ("lock", "gate", "key", "open"),
}
LABELS = tuple(sorted(WORDS))
FILLING = ("please", "the", "in", "my", "kitchen", "now", "could", "you", "a", "bedroom", "again", "quickly", "and", "then", "it")
NONSENSE = ("tax", "bishop", "giraffe", "carburettor")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def sentences(count: int, seed: int = 0, outside: int = 0) -> list[tuple[str, str]]:
    """`count` different (text, label), labels in turn; then `outside` rows of the label out_of_scope."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count + outside:
        label = LABELS[len(found) % len(LABELS)] if len(found) < count else "out_of_scope"
        telling = WORDS.get(label, NONSENSE)
        words = [*draw.sample(telling, 2), *(draw.choice(FILLING) for _ in range(draw.randrange(1, 7)))]
        draw.shuffle(words)
        found.setdefault(" ".join(words), label)
    return list(found.items())


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    """The rows as a CSV file with the columns text and label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def tokenizer(folder: Path) -> Any:
    """A WordPiece tokenizer that knows most of the toy problem's words, and spells the others. (A trained one has another vocabulary each time.)"""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), "##ing", "##er"]
    pieces += sorted({word for words in WORDS.values() for word in words} | set(FILLING[4:]) | set(NONSENSE[:2]) - set(pieces))
    words = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    kinds = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    fast = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, model_input_names=inputs, **kinds)
    fast.save_pretrained(folder)
    return fast


def bert(folder: Path) -> Path:
    """A random BERT without a head, as a Hugging Face directory."""
    import torch
    from transformers import BertConfig, BertModel

    vocabulary = len(tokenizer(folder))
    torch.manual_seed(1)
    BertModel(BertConfig(vocab_size=vocabulary, initializer_range=0.1, **SIZES)).save_pretrained(folder)
    return folder


def recipe(folder: Path, **changes: Any) -> Recipe:
    """A recipe over `folder`/model and `folder`/data.csv whose run is done within seconds; a dot in a key is two underscores."""
    keys: dict[str, Any] = {
        "model": str(folder / "model"),
        "task": "text-classification",
        "method": "full",
        "output": str(folder / "run"),
        "data.path": str(folder / "data.csv"),
        "adapt.epochs": 4,
        "adapt.batch_size": 16,
        "adapt.learning_rate": 5e-3,
        "adapt.dropout": 0.1,
        "adapt.precision": "fp32",
        "adapt.device": "cpu",
        "adapt.baselines": False,
        "export.targets": ["x86_64-vnni"],
        "compress.ensemble": 1,
        "export.max_drop": 0.05,
    }
    return load(None, keys | {key.replace("__", "."): value for key, value in changes.items()})


def problem(folder: Path, rows: int = 240, outside: int = 0) -> Path:
    """`folder` with the model and the data that `recipe` names."""
    bert(folder / "model")
    table(folder / "data.csv", sentences(rows, outside=outside))
    return folder


def classifier(folder: Path, labels: tuple[str, ...] = LABELS) -> Path:
    """A random BERT with a head, as a Hugging Face directory."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    vocabulary = len(tokenizer(folder))
    torch.manual_seed(1)
    config = BertConfig(vocab_size=vocabulary, initializer_range=0.3, **SIZES)
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def plan(folder: Path) -> Any:
    """How the classifier in `folder` is traced."""
    from edgetune.graph import encoder
    from edgetune.methods.model import load_merged

    model = load_merged(folder, "text-classification")
    model.set_attn_implementation("eager")
    return encoder.plan(model, SIZES["max_position_embeddings"])


def graph(folder: Path, path: Path) -> Path:
    """The float graph of the classifier in `folder`, by the exporter that is quick."""
    from edgetune.graph import export

    export._torchscript(plan(folder), path, 20)
    export._pin(path, plan(folder), 20, 10)
    return path


def sabotage(monkeypatch: Any, *broken: bool) -> None:
    """int8 writes graphs that answer at random, where `per_channel` is one of `broken` (none given: always)."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from edgetune.quant import dynamic

    int8 = dynamic.int8

    def wrong(graph: Path, out: Path, context: Any, *, per_channel: bool, **options: Any) -> dict[str, Any]:
        facts = int8(graph, out, context, per_channel=per_channel, **options)
        if per_channel in (broken or (True, False)):
            model, chance = onnx.load(out), np.random.default_rng(0)
            for tensor in model.graph.initializer:
                if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2:
                    tensor.CopyFrom(numpy_helper.from_array(chance.permuted(numpy_helper.to_array(tensor), axis=0), tensor.name))
            onnx.save(model, out)
        return facts

    monkeypatch.setattr(dynamic, "int8", wrong)
