"""The last layer is computed for the first token only, where only that is read; the answers are the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
import torch
import transformers
from onnx import TensorProto, helper

from edgetune.graph import Shape, encoder, export, narrow, session
from edgetune.graph.narrow import observe

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50, "num_labels": 5}
FAMILIES = {
    "bert": lambda: transformers.BertConfig(**SIZES),
    "roberta": lambda: transformers.RobertaConfig(**SIZES, max_position_embeddings=40, pad_token_id=1),
    "distilbert": lambda: transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=50, num_labels=5),
    "electra": lambda: transformers.ElectraConfig(**SIZES, embedding_size=16),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(FAMILIES[family]()).eval()
    model.set_attn_implementation("eager")
    facts = export.export(encoder.plan(model, 30), tmp_path / "model.onnx", 20, 10)
    assert facts["max_error"] < 1e-5
    assert facts["narrowed"] > 10
    graph = onnx.load(tmp_path / "model.onnx")
    shapes = observe(graph, [encoder.plan(model, 30).feeds(Shape(2, length), 0) for length in (5, 9)])
    matrices = [shapes[node.output[0]][1] for node in graph.graph.node if node.op_type == "MatMul"]
    rows = Counter(shape[1] for shape in matrices if len(shape) == 3)
    assert rows == {9: 8, 1: 4}, "keys and values of the last layer are for all tokens; query, output and both of its block for one"


def test_the_lean_form_is_the_same_model() -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(FAMILIES["bert"]()).eval()
    plan = encoder.plan(model, 30)
    assert isinstance(plan.traced, encoder.Lean)
    feeds = {name: torch.from_numpy(array) for name, array in plan.feeds(Shape(3, 9, padded=True), 1).items()}
    assert torch.allclose(plan.traced(**feeds)[0], plan.module(**feeds)[0], atol=1e-5)
    assert model.bert.embeddings.token_type_embeddings.weight.abs().sum() > 0, "the model itself is left alone"
    assert isinstance(model.bert.embeddings.token_type_embeddings, torch.nn.Embedding)


def test_a_model_with_masks_of_its_own_is_traced_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = transformers.AutoModelForSequenceClassification.from_config(FAMILIES["bert"]()).eval()
    monkeypatch.setattr(encoder.Lean, "forward", lambda self, ids, mask: self.model(input_ids=ids).logits)
    assert encoder.plan(model, 30).traced is None


def test_what_is_read_whole_stays_whole(tmp_path: Path) -> None:
    """x is read at its first position and, beside that, whole: one slice, and nothing above it is touched."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Gather", ["a", "zero"], ["first"], axis=1),
        helper.make_node("ReduceSum", ["a", "one"], ["sum"], keepdims=0),
        helper.make_node("Add", ["first", "sum"], ["logits"]),
    ]
    graph = _model(nodes)
    narrowed = onnx.ModelProto()
    narrowed.CopyFrom(graph)
    feeds = [{"x": np.random.default_rng(b).normal(size=(b, s, 4)).astype(np.float32)} for b, s in ((2, 5), (3, 7))]
    assert narrow.narrow(narrowed, observe(graph, feeds)) == 0
    _same(graph, narrowed, feeds, tmp_path)


def test_a_step_that_mixes_positions_is_not_passed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["mixed"], axis=1),
        helper.make_node("Tanh", ["mixed"], ["b"]),
        helper.make_node("Gather", ["b", "zero"], ["logits"], axis=1),
    ]
    graph = _model(nodes)
    narrowed = onnx.ModelProto()
    narrowed.CopyFrom(graph)
    feeds = [{"x": np.random.default_rng(b).normal(size=(b, s, 4)).astype(np.float32)} for b, s in ((2, 5), (3, 7))]
    assert narrow.narrow(narrowed, observe(graph, feeds)) == 1, "tanh only"
    _same(graph, narrowed, feeds, tmp_path)


def test_another_token_or_axis_is_left_alone() -> None:
    for index, axis in ((1, 1), (0, 0)):
        nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Gather", ["a", "zero"], ["logits"], axis=axis)]
        graph = _model(nodes, index)
        feeds = [{"x": np.ones((b, s, 4), np.float32)} for b, s in ((2, 5), (3, 7))]
        assert narrow.narrow(graph, observe(graph, feeds)) == 0


def _model(nodes: list[onnx.NodeProto], index: int = 0) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", "s", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 4])],
        [
            onnx.numpy_helper.from_array(np.array(index), "zero"),
            onnx.numpy_helper.from_array(np.array([1]), "one"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _same(a: onnx.ModelProto, b: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], folder: Path) -> None:
    onnx.checker.check_model(b)
    answers = []
    for i, model in enumerate((a, b)):
        onnx.save(model, folder / f"{i}.onnx")
        answers.append([session.start(folder / f"{i}.onnx").run(None, feed)[0] for feed in feeds])
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tiny_plan_is_narrowed(tmp_path: Path) -> None:
    plan = tiny.plan(tiny.classifier(tmp_path / "classifier"))
    assert export.export(plan, tmp_path / "model.onnx", 20, 10)["narrowed"] > 10
