"""The card of every task, whatever it has beside the outputs: a name that the template does not find is an error."""

from __future__ import annotations

import pytest

from edgetune import tasks
from edgetune.bundle.card import PIPELINES, Card, readme

FACTS = {
    **{
        "target": "rpi5",
        "scheme": "fp32",
        "generation": None,
        "model": "onnx/model.onnx",
        "opset": 20,
        "ir": 10,
        "onnxruntime_min": "1.20",
    },
    **{
        "metrics": {"quality": 0.5},
        "made_by": {"a tool": "1"},
        "max_length": 64,
        "compiled": None,
        "decoder": None,
        "provider": "CPUExecutionProvider",
    },
}
CONFIDENCE = {
    "text-classification": {"temperature": 1.5, "reject_below": 0.25, "chosen_by": "validation"},
    "multi-label-classification": {"thresholds": [0.3, 0.75], "chosen_by": "validation"},
}


def card(task: tasks.Task) -> str:
    own = {"asks": list(task.asks), "labels": ["a", "b"] if task.labelled else [], "confidence": CONFIDENCE.get(task.name)}
    return readme(Card("some/model"), task, {**FACTS, **own, "outputs": [{"name": name} for name in task.outputs]}, 1_000_000)


@pytest.mark.parametrize("name", [name for name, task in tasks.TASKS.items() if task.family == "encoder"])
def test_every_task_has_a_card(name: str) -> None:
    text = card(tasks.TASKS[name])
    assert (f"pipeline_tag: {tasks.TASKS[name].tag}" in text) == (tasks.TASKS[name].tag in PIPELINES)
    assert "python run.py" in text


def test_what_the_app_needs_beside_the_outputs_is_told() -> None:
    labels = card(tasks.get("multi-label-classification"))
    assert "| thresholds of the labels | 0.3 to 0.75 (chosen by validation) |" in labels
    single = card(tasks.of("text-classification", ("text",)))
    assert "| no label under | 0.25 (chosen by validation) |" in single
    assert 'print(bundle.predict(["some text"]))' in single
    assert 'pipeline("text-classification", "model"' in single


def test_no_pipeline_is_promised_that_would_mix_the_labels_of_several_tasks() -> None:
    text = card(tasks.of("multi-task", ("text",)))
    assert "pipeline(" not in text and "pipeline_tag" not in text


def test_a_pair_is_given_as_a_pair() -> None:
    text = card(tasks.of("text-regression", ("text", "text_pair")))
    assert """python run.py '{"text": "some text", "text_pair": "some text pair"}'""" in text
    assert 'tokenizer("some text", { text_pair: "another text" })' in text
    assert "(await model(inputs)).logits" in text


def test_vectors_are_read_from_their_own_output() -> None:
    assert "(await model(inputs)).sentence_embedding" in card(tasks.get("sentence-similarity"))


def test_two_graphs_are_told_apart() -> None:
    """transformers.js cannot load them, and nobody is told that it can."""
    pair = {"model": "onnx/encoder_model_quantized.onnx", "decoder": "onnx/decoder_model_merged_quantized.onnx"}
    own = {
        "asks": ["text"],
        "labels": None,
        "confidence": None,
        "generation": {"decoder_start": 7},
        "outputs": [{"name": "present.0.encoder.key"}],
    }
    text = readme(Card("some/model"), tasks.get("text2text-generation"), {**FACTS, **own, **pair}, 1_000_000)
    assert "pipeline_tag: text2text-generation" in text and "library_name: onnxruntime" in text
    assert all(name in text for name in pair.values()) and "from token 7" in text
    assert "@huggingface/transformers" not in text
