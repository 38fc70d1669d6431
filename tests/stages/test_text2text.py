"""Encoder-decoder models in the stages: what is learned, with which methods, and who refuses what."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pairs
import pytest
from conformance import models

from edgetune import pipeline
from edgetune.errors import GateError, RecipeError, RequestError
from edgetune.recipe import load
from edgetune.runtime import contestants

KEYS: dict[str, Any] = {"adapt.precision": "fp32", "adapt.label_smoothing": 0, "adapt.early_stopping": 0, "adapt.generated": 0}


def data(place: Path, rows: list[dict[str, str]]) -> Path:
    place.mkdir()
    (place / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return place


def run(place: Path, until: str = "merge", **keys: Any) -> dict[str, Any]:
    asked = {"output": str(place / "run"), "task": "text2text-generation", **KEYS, **{k.replace("__", "."): v for k, v in keys.items()}}
    found: dict[str, Any] = json.loads((pipeline.run(load(None, asked), until) / "report.json").read_text("utf-8"))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_loss_falls_far_on_translations(family: str, tmp_path: Path) -> None:
    """A model from its config learns a slice of Multi30k by heart."""
    source = Path(os.environ.get("EDGETUNE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "multi30k"
    if not source.is_dir():
        pytest.skip("EDGETUNE_DATA names no folder with the data sets")
    sides = [gzip.decompress((source / f"train.{side}.gz").read_bytes()).decode().splitlines()[:400] for side in ("en", "de")]
    rows = sorted(({"source": a, "target": b} for a, b in zip(*sides, strict=True)), key=lambda row: len(row["source"]))[:80]
    folder = models.seq2seq(tmp_path / "model", [text for row in rows for text in row.values()])
    if family == "bart":
        from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

        sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 128, **pairs.HEADS}
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1}
        size = len(AutoTokenizer.from_pretrained(folder))
        BartForConditionalGeneration(BartConfig(vocab_size=size, **sizes, **ids)).save_pretrained(folder)
    keys = {"adapt__max_steps": 320, "adapt__epochs": 80, "adapt__learning_rate": 1e-2, "adapt__batch_size": 16}
    report = run(tmp_path, model=str(folder), data__path=str(data(tmp_path / "data", rows)), method="full", **keys)
    losses = [epoch["train_loss"] for epoch in report["adapt"]["history"]]
    assert losses[-1] < 0.25 * losses[0]
    assert report["merge"]["max_logit_difference"] <= 1e-3


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_adapter_learns_and_is_merged(family: str, tmp_path: Path) -> None:
    folder = pairs.folder(family, tmp_path / "model", steps=20)
    keys = {"adapt__max_steps": 120, "adapt__epochs": 20, "adapt__learning_rate": 6e-3, "adapt__batch_size": 16, "method": "lora"}
    report = run(tmp_path, model=str(folder), data__path=str(data(tmp_path / "data", pairs.rows(120))), **keys)
    before = report["adapt"]["baselines"]["untrained"]["perplexity"]
    assert report["adapt"]["test"]["perplexity"] < 0.99 * before
    assert report["adapt"]["inputs"] == ["input_ids", "attention_mask", "decoder_input_ids"]
    assert report["merge"]["max_logit_difference"] <= 1e-3


def test_the_task_is_known_by_parallel_files(tmp_path: Path) -> None:
    from edgetune.data import infer

    rows = pairs.rows(20)
    for name, column in (("train.src", "source"), ("train.tgt", "target")):
        (tmp_path / name).write_text("".join(f"{row[column]}\n" for row in rows), "utf-8")
    assert infer.task(load(None, {"data.path": str(tmp_path)})) == "text2text-generation"


def test_a_target_that_cannot_run_two_graphs_says_so(tmp_path: Path) -> None:
    given = data(tmp_path / "data", pairs.rows(40))
    for target in ("web-wasm", "web-webgpu", "qualcomm-htp", "ios-coreml", "cuda"):
        with pytest.raises(RecipeError, match=f"target {target} does not run text2text-generation"):
            run(tmp_path, "export", model="somewhere", method="full", data__path=str(given), export__targets=(target,))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["head", "qlora"])
def test_methods_that_are_not_for_it_are_refused(method: str, tmp_path: Path) -> None:
    given = data(tmp_path / "data", pairs.rows(40))
    with pytest.raises(RecipeError, match="text2text-generation"):
        run(tmp_path, model="somewhere", method=method, data__path=str(given))


def test_a_search_for_smaller_forms_is_refused(tmp_path: Path) -> None:
    from edgetune.artifact import Merged
    from edgetune.stages.compress import sizes

    recipe = load(None, {"task": "text2text-generation", "export.fit": True})
    with pytest.raises(RecipeError):
        sizes(recipe, Merged(tmp_path, "", {"asks": ["text"]}))


def test_one_graph_is_no_rival(tmp_path: Path) -> None:
    model = pairs.folder("marian", tmp_path / "model", steps=1)
    made = contestants.bundle(pairs.bundle(model, pairs.graph(model, tmp_path / "model.onnx"), tmp_path / "bundle"))
    assert {path.name for path in made.model} == {"encoder_model.onnx", "decoder_model_merged.onnx"}
    assert made.sizes()["size_bytes"] == sum(path.stat().st_size for path in (tmp_path / "bundle" / "onnx").iterdir())
    assert contestants.against(model, made, tmp_path / "scratch").kind == "pytorch"
    with pytest.raises(RequestError, match="has two"):
        contestants.against(tmp_path / "model.onnx", made, tmp_path / "scratch")


def test_a_lost_decoder_is_found(tmp_path: Path) -> None:
    from edgetune.runtime.verify import verify

    model = pairs.folder("t5", tmp_path / "model", steps=1)
    bundle = pairs.bundle(model, pairs.graph(model, tmp_path / "model.onnx"), tmp_path / "bundle")
    facts = json.loads((bundle / "edgetune.json").read_text())
    (bundle / "edgetune.json").write_text(json.dumps({**facts, "decoder": "../outside.onnx"}))
    with pytest.raises(RequestError, match="outside"):
        verify(bundle)
    (bundle / "edgetune.json").write_text(json.dumps(facts))
    (bundle / facts["decoder"]).unlink()
    with pytest.raises(GateError) as found:
        verify(bundle)
    assert found.value.details == (f"missing: {facts['decoder']}",)


@pytest.mark.parametrize("adapter", [False, True])
def test_a_checkpoint_from_elsewhere_is_taken(adapter: bool, tmp_path: Path) -> None:
    """Of an adapter with a tokenizer beside it, too: its base says where the decoder starts."""
    folder = base = pairs.folder("bart", tmp_path / "model", steps=5)
    if adapter:
        from peft import LoraConfig, TaskType, get_peft_model
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        folder = tmp_path / "adapter"
        wrapped = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(base), LoraConfig(task_type=TaskType.SEQ_2_SEQ_LM))
        wrapped.save_pretrained(folder)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    report = run(tmp_path, model=str(folder), method="none", data__path=str(data(tmp_path / "data", pairs.rows(60))))
    assert report["merge"]["test"]["perplexity"] > 1
    assert report["merge"]["inputs"] == ["input_ids", "attention_mask", "decoder_input_ids"]


def test_node_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.runtime import cache, node

    monkeypatch.setattr(node, "_node", lambda: "node")
    monkeypatch.setattr(cache, "installed", lambda name: tmp_path)
    monkeypatch.setattr(cache, "facts", lambda place: {"key": node._key()})
    (tmp_path / "edgetune.json").write_text('{"decoder": "onnx/decoder_model_merged.onnx"}')
    with node.host("node") as host, pytest.raises(RequestError, match="two graphs"):
        host.run(tmp_path, ["--golden"])
