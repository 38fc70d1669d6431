"""Heads that get more labels, rows that are replayed, and weights that are held."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, BertConfig, DistilBertConfig, RobertaConfig

from edgetune.data.earlier import LEAST, replayed
from edgetune.errors import ModelError
from edgetune.methods import ewc
from edgetune.methods.continual import grown
from edgetune.tasks import text_classification as task

SIZES = {**tiny.SIZES, "vocab_size": 40}
KNOWN, MORE = ["c", "a", "b"], ["c", "a", "b", "x", "y"]
HEADS = {
    "bert": (AutoModelForSequenceClassification, BertConfig(**SIZES), "classifier"),
    "roberta": (AutoModelForSequenceClassification, RobertaConfig(**SIZES), "classifier.out_proj"),
    "distilbert": (AutoModelForSequenceClassification, DistilBertConfig(vocab_size=40, dim=32, hidden_dim=64, n_layers=1, n_heads=2), "classifier"),
    "as wide as its labels": (AutoModelForSequenceClassification, DistilBertConfig(vocab_size=40, dim=3, hidden_dim=4, n_layers=1, n_heads=1), "classifier"),
    "tags": (AutoModelForTokenClassification, BertConfig(**SIZES), "classifier"),
}  # fmt: skip


def model(kind: str) -> tuple[Any, str]:
    auto, config, head = HEADS[kind]
    torch.manual_seed(0)
    config.id2label, config.label2id = dict(enumerate(KNOWN)), {label: i for i, label in enumerate(KNOWN)}
    return auto.from_config(config).eval(), head


@pytest.mark.parametrize("kind", HEADS)
def test_old_labels_answer_as_before(kind: str, tmp_path: Path) -> None:
    old, head = model(kind)
    ids = torch.tensor([[2, 5, 9, 3], [4, 8, 1, 7]])
    before = old(input_ids=ids).logits.detach()
    first = old.get_submodule(head).weight.detach().clone()
    new = grown(old, MORE)
    after = new(input_ids=ids).logits.detach()
    assert torch.allclose(after[..., :3], before, atol=1e-6)
    lines = new.get_submodule(head).weight
    assert torch.equal(lines[:3], first)
    assert lines.shape[0] == len(MORE) and not torch.equal(lines[3], lines[4]), "new labels that start alike are slow to be told apart"
    assert new.config.id2label == dict(enumerate(MORE)) and new.config.num_labels == len(MORE)
    new.save_pretrained(tmp_path)
    again = type(new).from_pretrained(tmp_path).eval()
    assert torch.equal(again(input_ids=ids).logits, after)


def test_nothing_new_and_another_order() -> None:
    old, _ = model("bert")
    head = old.classifier
    assert grown(old, KNOWN).classifier is head
    with pytest.raises(ModelError, match="not the first of the 5 asked"):
        grown(old, sorted(MORE))
    old.classifier = torch.nn.Sequential()
    with pytest.raises(ModelError, match="no head with a line a label"):
        grown(old, MORE)


def test_replay_takes_of_each_class_in_its_share() -> None:
    rows = [{"text": f"{label}{i}", "label": label} for label, count in (("much", 300), ("some", 100), ("few", 4)) for i in range(count)]
    drawn = replayed(rows, 100, seed=1)
    counts = Counter(row["label"] for row in drawn)
    assert len(drawn) == 100 and counts["few"] == 4
    assert counts["much"] == pytest.approx(3 * counts["some"], abs=6)
    assert drawn == replayed(rows, 100, seed=1) != replayed(rows, 100, seed=2)
    assert [rows.index(row) for row in drawn] == sorted(rows.index(row) for row in drawn)
    assert Counter(row["label"] for row in replayed(rows, 1, seed=1)) == {"much": LEAST, "some": LEAST, "few": 4}
    assert replayed(rows, 9999, seed=1) == rows


def test_what_the_old_rows_need_is_held(toy: Any, tmp_path: Path) -> None:
    """Weights that no old row uses need nothing; the distance counts those of old labels only, and training keeps it small."""
    before, _ = toy.train(tmp_path / "old", epochs=2)
    before.config.id2label = dict(enumerate(tiny.LABELS))
    needs = ewc.fisher(before, task, toy.splits["train"][:40], 0, toy.device)
    assert max(float(part.max()) for part in needs.values()) == pytest.approx(1)
    seen = {token for row in toy.splits["train"][:40] for token in row["input_ids"]}
    words = needs["bert.embeddings.word_embeddings.weight"].sum(-1)
    assert {i for i, need in enumerate(words.tolist()) if need > 0} == seen
    old = {name: weight.detach().clone() for name, weight in before.named_parameters()}

    def went(strength: float) -> float:
        model = toy.model()
        model.load_state_dict(before.state_dict())
        model.config.id2label = dict(enumerate(tiny.LABELS))
        grown(model, [*tiny.LABELS, "new"])
        held = ewc.Elastic(task, model, old, needs, strength)
        assert held.distance().item() == 0
        with torch.no_grad():
            model.classifier.weight[-1] += 1
            assert held.distance().item() == 0, "a new label is free"
            model.classifier.weight[-1] -= 1
        learned = [{**row, "label": len(tiny.LABELS)} for row in toy.splits["train"]]
        problem = dataclasses.replace(toy.problem(lambda _: {"accuracy": 0.0, "log_loss": 0.0}), task=held, examples=learned)
        toy.train(tmp_path / str(strength), model=model, problem=problem, epochs=1)
        return held.distance().item()

    assert went(1e4) < 0.3 * went(0.0)
