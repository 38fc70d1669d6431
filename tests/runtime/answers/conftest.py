"""Bundles around tiny random BERTs with any head, to hold the modules of answers/ against transformers."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from edgetune.bundle import golden
from edgetune.runtime import copy_programs
from edgetune.runtime.worker import CPU, KEYS, SCHEMA, Bundle, architecture

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 128}

FACTS = {
    **dict.fromkeys(KEYS),
    **{"schema": SCHEMA, "model": "onnx/model.onnx", "target": "x86_64", "scheme": "fp32", "provider": CPU, "provider_options": {}},
    **{"session": {"threads": 1, "spinning": False, "optimization": "all", "arena": True, "prepacking": True}, "min_share": 0.0},
    **{"onnxruntime_min": "1.20", "max_length": 48, "truncation_side": "right", "pad_id": 0, "lengths": [9, 20]},
    "golden": {"architecture": architecture(), "provider": CPU, "tolerance": 1e-4, "elsewhere": 1e-4, "changed": 0.05},
    **{"outputs": [], "metrics": {}, "sha256": {}},
}


class ByName(torch.nn.Module):
    """A model as a graph: its inputs in their order, its outputs in theirs."""

    def __init__(self, model: torch.nn.Module, outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(INPUTS, inputs, strict=True)))
        return tuple(found[name] for name in self.outputs)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A WordPiece tokenizer of BERT's kind, with pairs."""
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [*golden.ODD, *golden.SUBJECTS, *golden.VERBS, "Anna Lopez flew from Berlin to New York-Newark on Monday."]
    words.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False))
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=words, model_input_names=list(INPUTS), **dict(zip(names, SPECIAL, strict=True)))


@pytest.fixture
def made(tokenizer: Any, tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """made(kind, task, asks, labels, outputs, **facts) -> the `model` of class `kind`, its `tokenizer`, and `bundle` and `folder`."""

    def make(
        kind: Any, task: str, *, asks: Sequence[str] = ("text",), outputs: Sequence[str] = ("logits",), **facts: Any
    ) -> SimpleNamespace:
        from transformers import BertConfig

        torch.manual_seed(0)
        names = {"id2label": dict(enumerate(facts["labels"]))} if "labels" in facts else {"num_labels": len(outputs)}
        config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **SIZES, **names)
        model = kind._from_config(config, attn_implementation="eager").eval()
        folder = tmp_path / "bundle"
        (folder / "onnx").mkdir(parents=True)
        _export(model, outputs, folder / "onnx" / "model.onnx")
        copy_programs(task, folder)
        tokenizer.save_pretrained(folder)
        inputs = [{"name": name, "dtype": "int64", "shape": ["batch_size", "sequence_length"]} for name in INPUTS]
        (folder / "edgetune.json").write_text(json.dumps({**FACTS, "task": task, "asks": list(asks), "inputs": inputs, **facts}), "utf-8")
        bundle = Bundle(folder)
        items = golden.items(golden.synthetic(tokenizer, 60, max_length=bundle.max_length), asks)
        rows = list(golden.rows(bundle, tokenizer, items))
        (folder / "golden.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
        return SimpleNamespace(model=model, tokenizer=tokenizer, bundle=bundle, folder=folder, golden=rows)

    return make


def _export(model: torch.nn.Module, outputs: Sequence[str], path: Path) -> None:
    mask = torch.ones((2, 7), dtype=torch.int64)
    mask[1, 5:] = 0
    inputs = (torch.randint(5, 90, (2, 7)), mask, torch.zeros_like(mask))
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in INPUTS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            ByName(model, outputs).eval(),
            inputs,
            path,
            dynamo=False,
            input_names=list(INPUTS),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=17,
        )
