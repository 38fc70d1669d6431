"""An intent and its slots: both heads learn, a row is right when both are, and what was saved is loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgetune.errors import DataError
from edgetune.methods.model import auto_class, forward
from edgetune.tasks import TASKS
from edgetune.tasks import intent_and_slots as task

ROWS: list[dict[str, Any]] = [
    {"text": "play song", "words": [[0, 4], [5, 9]], "tags": ["O", "B-track"], "intent": "play"},
    {"text": "lock the gate", "words": [[0, 4], [5, 8], [9, 13]], "tags": ["O", "B-door", "I-door"], "intent": "close"},
    {"text": "play", "words": [[0, 4]], "tags": ["O"], "intent": "play"},
]
LABELS = ["intent:close", "intent:play", "O", "B-door", "I-door", "B-track", "I-track"]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = task.encode(ROWS, tiny.tokenizer(tmp_path_factory.mktemp("words")), max_length=64, labels=LABELS).examples
    return found


def told(examples: list[dict[str, Any]], *wrong: str) -> Any:
    """Scores of a model that knows everything but what is named."""

    def forward(given: Any) -> dict[str, np.ndarray]:
        rows = [
            next(e for e in examples if e["input_ids"] == ids[: mask.sum()].tolist()) for ids, mask in zip(*given.values(), strict=True)
        ]
        intents = np.array([[4.0, 0.0] if (e["intent"] == 0) != ("intent" in wrong) else [0.0, 4.0] for e in rows], dtype=np.float32)
        slots = np.zeros((*given["input_ids"].shape, 5), dtype=np.float32)
        for line, example in zip(slots, rows, strict=True):
            for token, tag in zip(example["words"], example["tags"], strict=True):
                line[token, 0 if "slots" in wrong else tag] = 4.0
        return {"logits": intents, "slot_logits": slots}

    return task.score(forward, examples, 0, size=2)


def test_labels_are_intents_then_tags(examples: list[dict[str, Any]]) -> None:
    assert task.classes(ROWS) == LABELS
    assert [example["intent"] for example in examples] == [1, 0, 1]
    assert [LABELS[2 + i] for i in examples[1]["tags"]] == ROWS[1]["tags"]
    batch = task.collate(examples, 0)
    assert batch["intents"].tolist() == [1, 0, 1]
    assert (batch["labels"] >= 0).sum() == 6
    with pytest.raises(DataError, match="intents that the model does not know: fly"):
        task.encode([{**ROWS[0], "intent": "fly"}], None, max_length=9, labels=LABELS)


@pytest.mark.parametrize(
    ("wrong", "intents", "f1", "frames"), [((), 1, 1, 1), (("intent",), 0, 1, 0), (("slots",), 1, 0, 1 / 3), (("intent", "slots"), 0, 0, 0)]
)
def test_a_row_is_right_when_intent_and_slots_are(
    examples: list[dict[str, Any]], wrong: tuple[str, ...], intents: float, f1: float, frames: float
) -> None:
    scores = told(examples, *wrong)
    found = task.metrics(scores, LABELS)
    assert (found["intent_accuracy"], found["slot_f1"], found["frame_accuracy"]) == pytest.approx((intents, f1, frames))
    assert scores.lines.tolist() == [3, 4, 2], "a line for the intent, one a word"
    assert scores.logits.shape == (9, len(LABELS))
    chance = {True: 1 / (1 + np.exp(4.0)), False: 1 / (1 + np.exp(-4.0))}["intent" in wrong]
    words = [1 / (1 + 4 * np.exp(-4.0))] * 6
    if "slots" in wrong:
        words[1] = words[3] = words[4] = np.exp(-4.0) / (1 + 4 * np.exp(-4.0))
    assert found["log_loss"] == pytest.approx(-np.log([chance] * 3 + words).mean(), abs=1e-5), "no head speaks about the other's classes"
    report = {row["label"]: row for row in task.report(scores, LABELS)}
    assert list(report) == ["intent:close", "intent:play", "door", "track"]
    assert report["intent:play"]["recall"] == intents
    assert (report["door"]["f1"], report["door"]["support"]) == (f1, 1)
    assert task.metrics(scores.take(np.array([1])), LABELS)["frame_accuracy"] == float(not wrong)


def test_what_was_saved_is_loaded_again(tmp_path: Path, examples: list[dict[str, Any]]) -> None:
    """From a base without heads, and from one with another head: the same encoder, new heads."""
    from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

    kind = auto_class(TASKS["intent-and-slots"].name)
    tiny.bert(tmp_path / "base")
    AutoModelForMaskedLM.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "other")
    for base in (tmp_path / "base", tmp_path / "other"):
        config = AutoConfig.from_pretrained(base)
        config.id2label = dict(enumerate(LABELS))
        model, loading = kind.from_pretrained(base, config=config, output_loading_info=True)
        assert {name.split(".")[0] for name in loading["missing_keys"]} == {"classifier", "slot_classifier"}
        plain = AutoModel.from_pretrained(base)
        assert torch.equal(plain.embeddings.word_embeddings.weight, model.bert.embeddings.word_embeddings.weight)
        model.eval().save_pretrained(tmp_path / "saved")
        again, loading = kind.from_pretrained(tmp_path / "saved", output_loading_info=True)
        assert not loading["missing_keys"] and not loading["unexpected_keys"]
        given = {name: value for name, value in task.collate(examples, 0).items() if name in ("input_ids", "attention_mask")}
        before, after = (forward(one.eval())(given) for one in (model, again))
        assert before["logits"].shape == (3, 2) and before["slot_logits"].shape[-1] == 5
        assert all(np.array_equal(before[name], after[name]) for name in ("logits", "slot_logits"))
        alone = forward(again)({name: value[2:, :3] for name, value in given.items()})
        assert np.allclose(alone["logits"][0], after["logits"][2], atol=1e-5), "padding is nobody's answer"
        tensors = {name: torch.from_numpy(value) for name, value in given.items()}
        loss = task.loss(again(**tensors), {name: torch.from_numpy(value) for name, value in task.collate(examples, 0).items()}, 0.1)
        loss.backward()
        assert all(head.weight.grad.abs().sum() > 0 for head in (again.classifier, again.slot_classifier))
