"""The two graphs of an encoder-decoder model: names, what is in which, and the proof against PyTorch on three families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pairs
import pytest
import torch

from edgetune.errors import ModelError
from edgetune.graph import DECODER, export, files, seq2seq, session


@pytest.mark.parametrize("family", pairs.FAMILIES)
def test_both_graphs_equal_pytorch(family: str, tmp_path: Path) -> None:
    model = pairs.build(family)
    for weight in model.parameters():  # larger than a fresh model's, so that a lost mask or position would show
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    graph = tmp_path / "model.onnx"
    reader, writer = seq2seq.plans(model)
    for plan, path in ((reader, graph), (writer, graph.with_name(DECODER))):
        assert export.export(plan, path, 20, 10)["max_error"] <= export.TOLERANCE
    assert files(graph) == (graph, tmp_path / DECODER)
    encoder, decoder = (onnx.load(path).graph for path in files(graph))
    assert [item.name for item in encoder.input] == ["input_ids", "attention_mask"]
    assert [item.name for item in encoder.output] == [f"present.{i}.encoder.{kind}" for i in (0, 1) for kind in ("key", "value")]
    own = [f"past_key_values.{i}.decoder.{kind}" for i in (0, 1) for kind in ("key", "value")]
    text = [name.replace("decoder", "encoder") for name in own]
    assert [item.name for item in decoder.input] == ["input_ids", "encoder_attention_mask", *own, *text]
    assert [item.name for item in decoder.output] == ["logits", *(name.replace("past_key_values", "present") for name in own)]
    assert {dim.dim_param or dim.dim_value for item in decoder.input for dim in item.type.tensor_type.shape.dim} == {
        *("batch_size", "sequence_length", "encoder_sequence_length", "past_sequence_length"),
        *(4, 8),
    }
    projections = 4 * 32 * 32  # of the decoder: what it makes of the text is in the first graph
    assert sum(int(np.prod(tensor.dims)) for tensor in decoder.initializer) < sum(w.numel() for w in model.parameters()) - projections


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("taught")
    model = pairs.folder("bart", place / "model")
    return model, pairs.graph(model, place / "model.onnx")


def test_scores_are_those_of_pytorch(taught: tuple[Path, Path]) -> None:
    """Whether the decoder gets all tokens at once, or one by one as when it writes."""
    from transformers import AutoTokenizer

    from edgetune.methods.model import forward, load_merged
    from edgetune.tasks import text2text_generation as task

    folder, graph = taught
    examples = task.encode(pairs.rows(20, seed=5), AutoTokenizer.from_pretrained(folder), max_length=pairs.LENGTH).examples
    expected = task.score(forward(load_merged(folder, "text2text-generation")), examples, pairs.PAD)
    for by_token in (False, True):
        for size in (1, 8):
            found = task.score(session.forward(graph, by_token=by_token), examples, pairs.PAD, size)
            np.testing.assert_allclose(found.value, expected.value, rtol=1e-4)
            assert (found.weight == expected.weight).all()


def test_the_head_that_is_the_embedding_is_quantised_too(taught: tuple[Path, Path], tmp_path: Path) -> None:
    """Left in float are the products of attention alone: two in each of two attentions of two layers."""
    from edgetune.quant import SCHEMES

    facts = SCHEMES["int8-dynamic"].apply(taught[1].with_name(DECODER), tmp_path / DECODER)
    assert facts["left_float"] == 2 * 2 * 2
    graph = onnx.load(tmp_path / DECODER).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    assert not [node for node in graph.node if node.op_type == "Transpose" and made.get(node.input[0]) == "DequantizeLinear"]


def test_a_wrong_cache_is_found(taught: tuple[Path, Path], tmp_path: Path) -> None:
    """A decoder that reads the keys of one layer for those of another is no equal."""
    from transformers import AutoModelForSeq2SeqLM

    folder, graph = taught
    model = onnx.load(graph.with_name(DECODER))
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == "past_key_values.1.encoder.key":
                node.input[i] = "past_key_values.0.encoder.key"
    onnx.save(model, tmp_path / "wrong.onnx")
    plan = seq2seq.plans(AutoModelForSeq2SeqLM.from_pretrained(folder))[1]
    assert export.parity(plan, graph.with_name(DECODER))[0] <= export.TOLERANCE
    assert export.parity(plan, tmp_path / "wrong.onnx")[0] > export.TOLERANCE


def test_a_model_without_ordinary_caches_is_refused() -> None:
    model: Any = pairs.build("t5")
    forward = model.forward
    model.forward = lambda **given: {**forward(**given), "past_key_values": None}
    with pytest.raises(ModelError, match="t5"):
        seq2seq.plans(model)
