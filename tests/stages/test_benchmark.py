"""benchmark: the report that others read, quality on given rows, and honesty about where it was measured."""

# ruff: noqa: F811 (fixtures)

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from scipy.stats import binomtest

from edgetune.errors import DataError, RequestError
from edgetune.runtime import load, machine, written
from edgetune.runtime.measure import Shape
from edgetune.stages import benchmark as stage
from edgetune.stages.benchmark import benchmark

if "tiny_bundles" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("tiny_bundles", Path(__file__).parents[1] / "runtime" / "tiny.py")
    sys.modules["tiny_bundles"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["tiny_bundles"])

from tiny_bundles import classifier, decoder_model, encoder_model, generator  # noqa: F401

QUICK = {"rounds": 1, "shapes": [Shape(1, None), Shape(1, 16)]}


def test_the_report_has_the_keys_that_others_read(classifier, generator):
    found = benchmark([classifier, generator], **QUICK)
    json.dumps(found, allow_nan=False)
    assert found["schema"] == "edgetune.benchmark/1"
    assert {"cpu", "isa", "cores", "memory_bytes", "load_before", "load_after", "busy", "disturbed"} <= found["machine"].keys()
    for entry, bundle in zip(found["bundles"], (classifier, generator), strict=True):
        keys = ("path", "target", "scheme", "size_bytes", "load_ms", "peak_rss_bytes", "provider", "threads", "latency", "quality")
        assert set(keys) <= entry.keys()
        assert entry["size_bytes"] == (bundle / "onnx" / "model.onnx").stat().st_size
        for latency in entry["latency"]:
            assert {"batch", "sequence", "lengths", "p50_ms", "p95_ms", "p99_ms", "runs", "ci95_ms"} <= latency.keys()
            assert latency["ci95_ms"][0] <= latency["p50_ms"] <= latency["ci95_ms"][1]
    first, second = found["bundles"]
    assert first["download_bytes"] < first["files_bytes"] > first["size_bytes"]
    assert first["quality"] == {"metric": "accuracy", "value": 0.91, "baseline": 0.92, "n": 100, "ci95": None, "measured": "at export"}
    assert second["decode_tokens_per_s"] > 0
    assert second["latency"][1]["tokens_per_s"] == pytest.approx(16 / second["latency"][1]["p50_ms"] * 1000)
    assert "decode_tokens_per_s" not in first


def test_accuracy_is_measured_on_the_rows_given(classifier, tmp_path):
    bundle = load(classifier)
    texts = [
        f"{verb} {thing}" for verb in ("turn on", "check", "find", "sing") for thing in ("the light", "the weather", "a song", "日本", "x?")
    ]
    labels = bundle.facts["labels"]
    said = [labels[int(bundle.outputs(bundle.read(text)[0])["logits"].argmax())] for text in texts]
    rows = [{"text": text, "label": label} for text, label in zip(texts, said, strict=True)]
    for row in rows[:5]:  # five wrong answers
        row["label"] = labels[(labels.index(row["label"]) + 1) % 4]
    rows.append({"text": "no idea", "label": "out_of_scope"})  # counts in no accuracy
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    [entry] = benchmark([classifier], rows=path, **QUICK)["bundles"]
    quality = entry["quality"]
    assert (quality["metric"], quality["value"], quality["n"]) == ("accuracy", 0.75, 20)
    assert (quality["baseline"], quality["measured"]) == (0.92, "here")
    expected = binomtest(15, 20).proportion_ci(method="wilson")
    assert quality["ci95"] == pytest.approx([expected.low, expected.high])
    [entry] = benchmark([classifier], rows=lambda: rows, limit=5, **QUICK)["bundles"]
    assert (entry["quality"]["value"], entry["quality"]["n"]) == (0.0, 5)


def test_perplexity_is_measured_as_pytorch_has_it(generator, decoder_model):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from edgetune.tasks import text_generation

    rows = [{"prompt": f"list {i}", "completion": f"ls -{'alrtS'[i % 5]} {i}"} for i in range(12)]
    tokenizer = AutoTokenizer.from_pretrained(decoder_model[0])
    model = AutoModelForCausalLM.from_pretrained(decoder_model[0]).eval()
    losses = []
    for example in text_generation.encode(rows, tokenizer, max_length=256).examples:
        with torch.no_grad():
            logits = model(torch.tensor([example["input_ids"]])).logits[0, :-1]
        target = torch.tensor(example["labels"][1:])
        losses += torch.nn.functional.cross_entropy(logits, target, ignore_index=-100, reduction="none")[target != -100].tolist()
    [entry] = benchmark([generator], rows=lambda: rows, **QUICK)["bundles"]
    quality = entry["quality"]
    assert quality["metric"] == "perplexity"
    assert quality["value"] == pytest.approx(float(np.exp(np.mean(losses))), rel=1e-4)
    assert quality["n"] == 12
    assert quality["ci95"][0] < quality["value"] < quality["ci95"][1]


def test_a_grid_with_rivals_has_ratios_and_differences(classifier, encoder_model, tmp_path):
    labels = load(classifier).facts["labels"]
    texts = [f"{verb} {thing}" for verb in ("turn on", "check", "find", "sing") for thing in ("the light", "the weather", "a song")]
    rows = [{"text": text, "label": labels[0]} for text in texts]
    other = Path(shutil.copytree(classifier, tmp_path / "other"))
    spoil(other)
    found = benchmark(
        [classifier, other],
        against=[encoder_model[1], encoder_model[0]],
        threads=[1, 2],
        rounds=2,
        shapes=[Shape(1, None), Shape(1, 9)],
        rows=lambda: rows,
    )
    json.dumps(found, allow_nan=False)
    entries = found["bundles"]
    assert [(entry["kind"], entry["threads"]) for entry in entries] == [
        (k, t) for k in ("bundle", "bundle", "onnx", "pytorch") for t in (1, 2)
    ]
    assert [entry["path"] for entry in entries[::2]] == [str(path) for path in (classifier, other, encoder_model[1], encoder_model[0])]
    assert all("ratio" not in item for item in entries[0]["latency"])
    for number, entry in enumerate(entries[1:], 1):
        for item, base in zip(entry["latency"], entries[0 if number == 1 else number % 2]["latency"], strict=True):
            ratio = item["ratio"]
            assert ratio["to"] == {"path": str(classifier), "threads": 1 if number == 1 else entry["threads"]}
            assert ratio["ci95"][0] <= ratio["value"] <= ratio["ci95"][1]
            logs = [np.log(a / b) for a, b in zip(item["turns_ms"], base["turns_ms"], strict=True)]
            assert ratio["value"] == pytest.approx(np.exp(np.mean(logs)))
    lengths = [len(load(classifier).read(text)[0][0]["input_ids"]) for text in texts]
    assert {entry["latency"][0]["sequence"] for entry in entries} == {round(np.mean(lengths))}
    same, spoilt, plain, torch_model = (entry["quality"] for entry in entries[::2])
    assert same["value"] == plain["value"] == torch_model["value"]
    assert plain["difference"]["value"] == 0
    assert plain["difference"]["flips"] == {"right_to_wrong": 0, "wrong_to_right": 0}
    assert spoilt["value"] == 1.0  # it always says the first label
    assert spoilt["difference"]["value"] == pytest.approx(1 - same["value"])
    assert spoilt["difference"]["flips"] == {"right_to_wrong": 0, "wrong_to_right": round(12 * (1 - same["value"]))}
    assert [one["label"] for one in same["per_label"]] == labels
    assert same["per_label"][0]["recall"] == same["value"]
    assert found["machine"]["spread"] >= 0


def spoil(bundle: Path) -> None:
    """Make it answer the first label always."""
    path = bundle / "onnx" / "model.onnx"
    model = onnx.load(path)
    [node] = [node for node in model.graph.node if "logits" in node.output]
    node.output[list(node.output).index("logits")] = "raw"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1e3, 0, 0, 0], dtype=np.float32), "push"))
    model.graph.node.append(onnx.helper.make_node("Add", ["raw", "push"], ["logits"]))
    onnx.save(model, path)


def test_a_foreign_target_is_marked(classifier, tmp_path):
    foreign = {"x86_64": "aarch64", "aarch64": "x86_64"}[machine.architecture()]
    copy = Path(shutil.copytree(classifier, tmp_path / "arm"))
    facts = json.loads((copy / "edgetune.json").read_text()) | {"architecture": foreign, "target": "elsewhere"}
    (copy / "edgetune.json").write_text(json.dumps(facts))
    native = json.loads((classifier / "edgetune.json").read_text()) | {"architecture": machine.architecture()}
    here = Path(shutil.copytree(classifier, tmp_path / "here"))
    (here / "edgetune.json").write_text(json.dumps(native))
    first, second = benchmark([copy, here], **QUICK)["bundles"]
    assert first["note"] == f"measured on this {machine.architecture()} machine, not on elsewhere"
    assert "note" not in second


def test_wrong_requests(classifier, generator, tmp_path):
    with pytest.raises(RequestError, match="no bundle"):
        benchmark([])
    with pytest.raises(RequestError, match="is not an edgetune bundle"):
        benchmark([tmp_path])
    with pytest.raises(DataError, match="cannot read"):
        benchmark([classifier], rows=tmp_path / "none.jsonl", **QUICK)
    (tmp_path / "row.jsonl").write_text('{"label": "x"}\n')
    with pytest.raises(DataError, match=r"row 1 of .* has no text"):
        benchmark([classifier], rows=tmp_path / "row.jsonl", **QUICK)
    with pytest.raises(RequestError, match="different tasks"):
        benchmark([classifier, generator], rows=lambda: [{"text": "a", "label": "weather"}], **QUICK)
    with pytest.raises(RequestError, match="cannot be compared"):
        benchmark([classifier], against=[generator], **QUICK)
    with pytest.raises(RequestError, match="for this machine only"):
        benchmark([classifier], against=[generator], on="ssh://nobody@nowhere", **QUICK)
    (tmp_path / "bad.jsonl").write_text("{\n")
    with pytest.raises(DataError, match="is not JSON lines"):
        benchmark([classifier], rows=tmp_path / "bad.jsonl", **QUICK)


def test_one_row_has_no_bootstrap_interval(generator):
    [entry] = benchmark([generator], rows=lambda: [{"prompt": "a", "completion": "b c"}], **QUICK)["bundles"]
    assert entry["quality"]["ci95"] is None
    assert stage.SCHEMA == "edgetune.benchmark/1"


def test_what_is_written_is_measured_the_same_in_pytorch(generator, decoder_model):
    """A random model's own words are the references: the bundle, in its own process, must write them again, and PyTorch too."""
    bundle = load(generator)
    limit = bundle.generation["max_new_tokens"]
    prompts = [f"list {i} files in {'abcdefgh'[i % 8]}" for i in range(12)]
    rows = [{"prompt": prompt, "completion": bundle.generate(prompt)["text"] or "?"} for prompt in prompts]
    rows[3]["completion"] = "nothing of the kind"
    found = benchmark([generator], against=[decoder_model[0]], rows=lambda: rows, generated=10, **QUICK)
    json.dumps(found, allow_nan=False)
    ours, torch_model = (entry["generated"] for entry in found["bundles"])
    assert ours == torch_model
    assert (ours["rows"], ours["of"], ours["max_new_tokens"]) == (10, 12, limit)
    chosen = written.generated.chosen(12, 10, 0)
    assert ours["exact_match"] == (9 if 3 in chosen else 10) / 10
    assert all("generated" not in entry for entry in benchmark([generator], rows=lambda: rows, generated=0, **QUICK)["bundles"])


def test_a_conversation_that_a_bundle_cannot_take_is_left_away(generator):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": turns}, {"messages": turns + turns}, {"prompt": "many words " * 200, "completion": "b"}]
    one = written.Contestant("bundle", generator, generator, load(generator).facts, (), ())
    assert sorted(written._asked(one, rows)) == [0]
