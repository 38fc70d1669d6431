"""What a bundle can be measured against: other bundles, plain ONNX files and PyTorch; and what is refused."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgetune.errors import RequestError
from edgetune.runtime import contestants, quality
from edgetune.runtime.measure import Shape, in_turns

SHAPES = [Shape(1, None), Shape(2, 5)]


def graph_with(inputs: tuple[str, ...], path: Path) -> Path:
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch_size", "sequence_length"]) for name in inputs]
    out = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.INT64, None)
    node = onnx.helper.make_node("Identity", [inputs[0]], ["logits"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", values, [out])), path)
    return path


def test_a_plain_graph_is_run_as_it_is(classifier, encoder_model, tmp_path):
    like = contestants.bundle(classifier)
    plain = contestants.against(encoder_model[1], like, tmp_path / "scratch")
    assert plain.kind == "onnx"
    assert plain.sizes()["size_bytes"] == encoder_model[1].stat().st_size
    [measured] = in_turns([plain.entrant(2)], rounds=1, shapes=SHAPES, runs=3)
    assert (measured.threads, measured.bundle) == (2, encoder_model[1])
    assert [(item.batch, item.lengths, item.runs) for item in measured.latency] == [(1, "real", 3), (2, "fixed", 3)]
    assert measured.latency[0].text_p50_ms > 0


def test_pytorch_is_run_and_scored_in_the_same_way(classifier, encoder_model):
    like = contestants.bundle(classifier)
    model = contestants.against(encoder_model[0], like, Path("unused"))
    assert model.kind == "pytorch"
    assert model.sizes()["size_bytes"] == (encoder_model[0] / "model.safetensors").stat().st_size
    [measured] = in_turns([model.entrant(None)], rounds=1, shapes=SHAPES, texts=["turn on the light", "sing " * 300], runs=3)
    assert measured.runtime.startswith("torch ")
    assert (measured.provider, measured.threads) == ("PyTorch", like.facts["session"]["threads"])
    real, five = measured.latency
    bundle_ids = [len(ids) for ids in encoded(classifier, ["turn on the light", "sing " * 300])]
    assert real.sequence == round(np.mean(bundle_ids))
    assert (five.batch, five.sequence) == (2, 5)
    assert measured.peak_rss_bytes > 100e6
    rows = [{"text": f"turn on {i}", "label": like.facts["labels"][i % 4]} for i in range(12)]
    a, b = (quality.score(one, rows) for one in (like, model))
    assert a.logits == pytest.approx(b.logits, abs=1e-4)


def test_pytorch_decoder_has_prefill_and_decode(generator, decoder_model):
    model = contestants.against(decoder_model[0], contestants.bundle(generator), Path("unused"))
    [measured] = in_turns([model.entrant(1)], rounds=1, shapes=[Shape(1, 8)], runs=2)
    assert measured.decode_tokens_per_s > 0
    assert measured.latency[0].sequence == 8


def test_pytorch_is_not_run_with_a_provider_of_onnxruntime(classifier, encoder_model):
    model = contestants.against(encoder_model[0], contestants.bundle(classifier), Path("unused"))
    with pytest.raises(RequestError, match="cannot be measured") as caught:
        in_turns([model.entrant(1)], rounds=1, shapes=SHAPES, provider="CUDAExecutionProvider")
    assert "PyTorch is measured on the CPU" in caught.value.details[-1]


def test_weights_beside_the_graph_come_along(classifier, encoder_model, tmp_path):
    path = tmp_path / "graph" / "model.onnx"
    path.parent.mkdir()
    model = onnx.load(encoder_model[1])
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=512)
    like = contestants.bundle(classifier)
    found = contestants.against(path, like, tmp_path / "scratch")
    whole = path.stat().st_size + (path.parent / "weights.bin").stat().st_size
    assert found.sizes()["size_bytes"] == whole
    assert in_turns([found.entrant(1)], rounds=1, shapes=SHAPES, runs=2)[0].latency[0].p50_ms > 0
    (path.parent / "weights.bin").unlink()
    with pytest.raises(RequestError, match=r"keeps weights in weights\.bin"):
        contestants.against(path, like, tmp_path / "other")


def test_the_tokenizer_beside_a_graph_is_its_own(classifier, encoder_model, tmp_path):
    model = onnx.load(encoder_model[1])
    like = contestants.bundle(classifier)
    for weight in model.graph.initializer:  # ten more entries in the vocabulary
        values = onnx.numpy_helper.to_array(weight)
        if len(values.shape) == 2 and values.shape[0] == vocabulary(classifier):
            weight.CopyFrom(onnx.numpy_helper.from_array(np.concatenate([values, values[:10]]), weight.name))
    path = tmp_path / "graph" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path)
    with pytest.raises(RequestError, match="another vocabulary") as caught:
        contestants.against(path, like, tmp_path / "scratch")
    assert caught.value.mend == "put its tokenizer.json beside it"
    shutil.copy(classifier / "tokenizer.json", path.parent)
    found = contestants.against(path, like, tmp_path / "scratch")
    assert in_turns([found.entrant(1)], rounds=1, shapes=SHAPES, runs=2)[0].latency[0].p50_ms > 0


def test_what_cannot_be_compared(classifier, generator, encoder_model, decoder_model, tmp_path):
    like = contestants.bundle(classifier)

    def refused(path: Path, message: str) -> RequestError:
        with pytest.raises(RequestError, match=message) as caught:
            contestants.against(path, like, tmp_path / "scratch")
        assert caught.value.exit_code == 2
        return caught.value

    refused(tmp_path / "none.onnx", "no such file")
    refused(graph_with(("pixels",), tmp_path / "other.onnx"), "cannot be fed: its inputs are pixels")
    refused(graph_with(("input_ids", "pixels"), tmp_path / "more.onnx"), "cannot be fed: its inputs are input_ids, pixels")
    (tmp_path / "text.onnx").write_text("not a graph")
    refused(tmp_path / "text.onnx", "is not an ONNX file")
    refused(generator, "does text-generation, .* text-classification")
    refused(decoder_model[0], "is a LlamaForCausalLM")
    refused(tmp_path, "neither a bundle nor a model")
    run = tmp_path / "run"
    shutil.copytree(encoder_model[0], run / "merged")
    assert refused(run, "neither").mend == f"did you mean {run / 'merged'}?"
    (run / "merged" / "model.safetensors").unlink()
    refused(run / "merged", "has no weights")


def test_a_graph_with_other_labels_is_not_scored(classifier, encoder_model, tmp_path):
    copy = Path(shutil.copytree(classifier, tmp_path / "copy"))
    facts = json.loads((copy / "edgetune.json").read_text())
    (copy / "edgetune.json").write_text(json.dumps(facts | {"labels": [*facts["labels"], "more"]}))
    like = contestants.bundle(copy)
    with pytest.raises(RequestError, match="tells 4 labels apart, the bundle 5"):
        quality.score(contestants.against(encoder_model[1], like, tmp_path / "scratch"), [{"text": "a", "label": "weather"}])


def test_sizes_are_what_a_zip_of_the_files_has(classifier, tmp_path):
    one = contestants.bundle(classifier)
    names = {path.name for path in (*one.model, *one.others)}
    assert {"model.onnx", "tokenizer.json", "config.json", "edgetune.json"} <= names
    assert not {"golden.jsonl", "README.md", "run.py"} & names
    with zipfile.ZipFile(tmp_path / "app.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=6) as packed:
        for path in (*one.model, *one.others):
            packed.write(path, path.name)
        assert one.sizes()["download_bytes"] == sum(item.compress_size for item in packed.infolist())
    assert one.sizes()["files_bytes"] == sum(path.stat().st_size for path in (*one.model, *one.others))


def encoded(bundle: Path, texts: list[str]) -> list[list[int]]:
    from edgetune.runtime import load

    return [load(bundle).read(text)[0][0]["input_ids"] for text in texts]


def vocabulary(bundle: Path) -> int:
    return len(json.loads((bundle / "tokenizer.json").read_text())["model"]["vocab"])
