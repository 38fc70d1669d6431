"""A bundle has the layout that other tools load, says what it is, and gives nothing away."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetune.artifact import file_digest
from edgetune.bundle import write as writing
from edgetune.bundle.card import Card, transformers_js_dtype
from edgetune.bundle.write import write
from edgetune.errors import GateError, ModelError, StageError
from edgetune.runtime import worker
from edgetune.runtime.verify import verify
from edgetune.target import load


def test_the_layout(classifier, generator):
    for bundle in (classifier, generator):
        files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
        always = {
            "config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "onnx/model.onnx",
            "run.py",
            "answers/probability.py",
            "edgetune.json",
            "golden.jsonl",
            "README.md",
        }
        assert always <= files
        assert [name for name in files if name.startswith("onnx/")] == ["onnx/model.onnx"]
        facts = json.loads((bundle / "edgetune.json").read_text())
        assert facts["sha256"] == {name: file_digest(bundle / name) for name in files - {"edgetune.json"}}
        assert (bundle / "run.py").read_bytes() == Path(worker.__file__).read_bytes()
        assert {name for name in files if name.startswith("answers/")} == {
            "answers/probability.py",
            f"answers/{facts['task'].replace('-', '_')}.py",
        }
    assert (generator / "chat_template.jinja").is_file()
    assert (generator / "generation_config.json").is_file()
    assert json.loads((generator / "tokenizer_config.json").read_text())["chat_template"] == (generator / "chat_template.jinja").read_text()


def test_what_edgetune_json_says(classifier, generator):
    facts = json.loads((classifier / "edgetune.json").read_text())
    assert facts["schema"] == "edgetune.bundle/1"
    assert facts.keys() == {"schema", *worker.KEYS}
    assert (facts["task"], facts["target"], facts["scheme"], facts["architecture"]) == ("text-classification", "x86_64", "fp32", "x86_64")
    assert (facts["provider"], facts["opset"], facts["ir"]) == ("CPUExecutionProvider", 20, 10)
    assert facts["session"] == {"threads": 1, "spinning": True, "optimization": "all", "arena": True, "prepacking": True}
    assert facts["inputs"][0] == {"name": "input_ids", "dtype": "int64", "shape": ["batch_size", "sequence_length"]}
    assert facts["outputs"] == [{"name": "logits", "dtype": "float", "shape": ["batch_size", 4]}]
    assert len(facts["lengths"]) == 64
    assert np.mean(facts["lengths"]) == pytest.approx(np.mean(range(3, 103)), abs=2)
    assert facts["lengths"] != sorted(facts["lengths"])
    assert facts["made_by"]["edgetune"]
    facts = json.loads((generator / "edgetune.json").read_text())
    assert facts["generation"]["suffix"] == "<|im_end|>\n<|im_start|>assistant\n"
    assert facts["outputs"][0]["name"] == "logits"


def test_transformers_loads_it_and_nothing_pads_or_cuts(classifier):
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(classifier)
    assert config.id2label == {0: "lights_on", 1: "lights_off", 2: "weather", 3: "music"}
    words = json.loads((classifier / "tokenizer.json").read_text())
    assert words["truncation"] is None
    assert words["padding"] is None
    assert len(AutoTokenizer.from_pretrained(classifier)("a " * 30)["input_ids"]) == 32
    assert json.loads((classifier / "config.json").read_text())["transformers.js_config"] == {"dtype": "fp32"}


def test_no_path_of_this_machine_ships(classifier, generator):
    for bundle in (classifier, generator):
        for path in bundle.rglob("*"):
            if path.is_file():
                assert b"/home/someone" not in path.read_bytes(), path
                assert b"pytest-of" not in path.read_bytes(), path


def test_golden_rows_are_what_pytorch_says(classifier, generator, encoder_model, decoder_model):
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    for bundle, (merged, _), kind in (
        (classifier, encoder_model, AutoModelForSequenceClassification),
        (generator, decoder_model, AutoModelForCausalLM),
    ):
        model = kind.from_pretrained(merged).eval()
        rows = [json.loads(line) for line in (bundle / "golden.jsonl").read_text().splitlines()]
        assert len(rows) >= 100
        for row in rows[:12]:
            with torch.no_grad():
                logits = model(torch.tensor([row["input_ids"]])).logits[0].numpy()
            if kind is AutoModelForCausalLM:
                best = np.argsort(-logits[-1])[:16]
                assert {token for token, _ in row["logits"]} == set(best.tolist())
                np.testing.assert_allclose([value for _, value in row["logits"]], np.sort(logits[-1])[::-1][:16], atol=1e-4)
            else:
                np.testing.assert_allclose(row["logits"], logits, atol=1e-4)


def test_text_over_the_maximum_is_in_the_golden_rows(classifier):
    rows = [json.loads(line) for line in (classifier / "golden.jsonl").read_text().splitlines()]
    assert max(len(row["input_ids"]) for row in rows) == 48
    assert (classifier / "golden.jsonl").read_bytes().isascii()


def test_a_tokenizer_that_differs_from_training_is_refused(encoder_model, specs, tmp_path, monkeypatch):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    other = AutoTokenizer.from_pretrained(encoder_model[0])
    inner = other.backend_tokenizer
    inner.normalizer = None
    other = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    spec = specs[0](*encoder_model)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: other)
    with pytest.raises(GateError, match="would read a text differently"):
        write(spec, tmp_path / "out")


def test_a_prompt_that_differs_from_the_chat_template_is_refused(decoder_model, specs, tmp_path):
    spec = specs[1](*decoder_model)
    spec = replace(spec, generation={**spec.generation, "suffix": "<|im_end|><|im_start|>assistant\n"})
    with pytest.raises(GateError, match="would read a text differently"):
        write(spec, tmp_path / "out")


def test_a_slow_tokenizer_is_refused(encoder_model, specs, tmp_path):
    spec = specs[0](*encoder_model)
    (tmp_path / "merged").mkdir()
    with pytest.raises(ModelError, match="not a fast one"):
        write(replace(spec, merged=tmp_path / "merged"), tmp_path / "out")


def test_external_data_is_taken_in_and_two_gigabytes_are_the_end(encoder_model, specs, tmp_path, monkeypatch):
    merged, graph = encoder_model
    onnx.save(onnx.load(graph), tmp_path / "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0)
    assert (tmp_path / "apart.bin").stat().st_size > 10_000
    spec = specs[0](merged, tmp_path / "apart.onnx", scheme="int8-dynamic", suffix="_quantized")
    facts = write(spec, tmp_path / "out")
    assert facts["model"] == "onnx/model_quantized.onnx"
    assert [path.name for path in (tmp_path / "out" / "onnx").iterdir()] == ["model_quantized.onnx"]
    assert verify(tmp_path / "out")["passed"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["transformers.js_config"] == {"dtype": "q8"}
    monkeypatch.setattr(writing, "LARGEST", 1000)
    with pytest.raises(StageError, match="over the 2 GB"):
        write(spec, tmp_path / "again")


def test_the_card(classifier, generator):
    text = (classifier / "README.md").read_text()
    from huggingface_hub import ModelCard

    data = ModelCard(text).data
    assert (data.license, data.base_model, data.pipeline_tag) == ("apache-2.0", "someone/tiny-bert", "text-classification")
    for said in (
        *("| baseline | 0.92 |", "| quality | 0.91 |", "made-up rows, licence cc0-1.0 (10 train, 5 test rows)", "Method: full", "A test."),
        *("scp -r", "pip install onnxruntime tokenizers numpy", "python run.py --golden", 'dtype: "fp32"', "divide the logits by 1.5"),
    ):
        assert said in text, said
    assert (classifier / "LICENSES" / "LICENSE").read_text() == "Apache License 2.0"
    text = (generator / "README.md").read_text()
    assert "adapted from tiny-llama with" in text
    assert "licence unknown" in text
    assert ModelCard(text).data.base_model is None
    assert "No licence file was found" in (generator / "LICENSES" / "NOT_FOUND.txt").read_text()


def test_the_python_of_the_card_runs(classifier, generator, tmp_path):
    import re
    import subprocess
    import sys

    for bundle in (classifier, generator):
        code = re.search(r"```python\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)[1]
        code = code.replace('"model"', repr(str(bundle)))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


@pytest.mark.parametrize(("suffix", "dtype"), [("", "fp32"), ("_quantized", "q8"), ("_fp16", "fp16"), ("_q4", "q4"), ("_int8", "int8")])
def test_names_of_transformers_js(suffix, dtype):
    assert transformers_js_dtype(f"onnx/model{suffix}.onnx") == dtype


def test_the_licence_is_the_one_the_base_model_states(tmp_path):
    assert Card("a/b").licence == "unknown"
    assert Card("a/b", tmp_path).licence == "unknown"
    (tmp_path / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# Model\n")
    assert Card("a/b", tmp_path).licence == "mit"
    assert Card("a/b", tmp_path, "apache-2.0").licence == "apache-2.0"


def test_what_a_provider_compiles_ships_beside_the_graph(encoder_model, specs, tmp_path, monkeypatch):
    placed = {"provider": worker.CPU, "nodes": 4, "taken": 3, "share": 0.75, "pieces": 1, "left": {"Erf": 1}, "fell_back": [("n3", "Erf")]}

    def compile(graph, out, *, min_share, options):
        assert (min_share, options) == (load("x86_64").runtime.min_share, {})
        shutil.copyfile(graph, out)
        return {"placement": placed, "binary_bytes": 7}

    monkeypatch.setattr(writing, "COMPILERS", {worker.CPU: "some:function"})
    monkeypatch.setattr(writing, "resolve", lambda name: compile)
    facts = write(specs[0](*encoder_model), tmp_path / "bundle")
    assert facts["compiled"] == {"model": "compiled/model.onnx", "placement": placed, "binary_bytes": 7}
    assert "compiled/model.onnx" in facts["sha256"]
    assert "3 of its 4 nodes run on the accelerator" in " ".join((tmp_path / "bundle" / "README.md").read_text("utf-8").split())
    assert verify(tmp_path / "bundle")["passed"]


def test_what_is_not_compiled_ahead_of_time_says_so(encoder_model, specs, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(writing, "available", lambda provider: False)
    caplog.set_level("WARNING", "edgetune")
    facts = write(specs[0](*encoder_model, target=load("qualcomm-htp")), tmp_path / "bundle")
    assert facts["compiled"] is None and not (tmp_path / "bundle" / "compiled").exists()
    assert "not compiled ahead of time" in (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert any("is not compiled ahead of time" in text and "pip install onnxruntime-qnn" in text for text in caplog.messages)
