"""The official score of SemEval-2010 task 8, by hand and by scikit-learn; and a classifier that reads the marked entities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.methods.model import load_base, load_merged, load_tokenizer
from edgetune.tasks import Scores, get
from edgetune.tasks import relation_extraction as task
from edgetune.tasks.entity_classifier import EntityClassifier

LABELS = ["Cause(e1,e2)", "Cause(e2,e1)", "Other", "Part(e1,e2)", "Part(e2,e1)"]
CAUSE, CAUSED, OTHER, PART, PARTED = range(5)
MARKERS = get("relation-extraction").markers


def scores(target: list[int], answer: list[int]) -> Scores:
    """Through `score`, with a model that gives `answer`."""
    of = task.relations(LABELS)[1]
    examples = [{"input_ids": [i], "label": label, "relations": of} for i, label in enumerate(target)]
    logits = np.eye(len(LABELS), dtype=np.float32)[answer]
    return task.score(lambda given: {"logits": logits[given["input_ids"][:, 0]]}, examples, 0)


def test_relations_of_labels() -> None:
    assert task.relations(LABELS) == (["Cause", "Part"], [0, 0, -1, 1, 1])
    assert task.relations(["no_relation", "per:title", "Use(e1, e2)"]) == (["Use", "per:title"], [-1, 1, 0])
    assert task.relations(["f(e1,e1)"])[0] == ["f(e1,e1)"], "not a direction"


def test_by_hand_as_the_official_scorer_counts() -> None:
    """Cause: 3 there, said 3 times (one turned round), 1 right; Part: 2 there, said twice, 1 right: P = R = 1/3 and 1/2."""
    target = [CAUSE, CAUSED, CAUSE, PART, PARTED, OTHER, OTHER]
    answer = [CAUSE, CAUSE, OTHER, PART, OTHER, CAUSE, PART]
    found = task.metrics(scores(target, answer), LABELS)
    assert found["macro_f1"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (5 + 5)), "right 2, there 5, said 5"
    assert found["accuracy"] == pytest.approx(2 / 7)


@pytest.mark.parametrize(
    ("target", "answer", "expected"),
    [
        ([CAUSE, PART, OTHER], [CAUSE, PART, OTHER], 1.0),
        ([CAUSE, CAUSED], [CAUSED, CAUSE], 0.0),
        ([CAUSE, OTHER], [CAUSE, CAUSE], 2 / 3),
        ([OTHER, OTHER], [OTHER, CAUSE], 0.0),
        ([CAUSE, CAUSE], [CAUSE, PART], 2 / 3),
    ],
    ids=["all right", "direction counts", "other is taken for it", "nothing to find", "a relation that no row has"],
)
def test_small_cases(target: list[int], answer: list[int], expected: float) -> None:
    found = scores(target, answer)
    assert task.metrics(found, LABELS)["macro_f1"] == pytest.approx(expected)
    assert task.quality(found) == pytest.approx(expected)


def by_the_scorer(target: list[int], answer: list[int]) -> float:
    """As semeval2010_task8_scorer prints it: P = right / (said + xDIRx), R = right / ACTUAL of each relation, F1, their mean."""
    names, of = task.relations(LABELS)
    found = []
    for number in range(len(names)):
        right = sum(t == a and of[t] == number for t, a in zip(target, answer, strict=True))
        said = sum(of[a] == number for a in answer)
        actual = sum(of[t] == number for t in target)
        if actual:
            p, r = right / said if said else 0.0, right / actual
            found.append(2 * p * r / (p + r) if p + r else 0.0)
    return sum(found) / len(found) if found else 0.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_both_ways_of_counting_agree_with_the_scorer(pairs: list[tuple[int, int]]) -> None:
    target, answer = [t for t, _ in pairs], [a for _, a in pairs]
    found = scores(target, answer)
    expected = by_the_scorer(target, answer)
    assert task.metrics(found, LABELS)["macro_f1"] == pytest.approx(expected)
    assert task.quality(found) == pytest.approx(expected)
    assert task.quality(found.take(np.arange(len(pairs))[::-1])) == pytest.approx(expected)


def test_rows_out_of_scope_count_nowhere() -> None:
    both = scores([CAUSE, PART], [CAUSE, OTHER]), scores([CAUSE, PART, -1], [CAUSE, OTHER, CAUSE])
    assert task.quality(both[0]) == task.quality(both[1])
    assert task.metrics(both[0], LABELS)["macro_f1"] == task.metrics(both[1], LABELS)["macro_f1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """(model with markers, its tokenizer, the folder that both were saved in)."""
    folder = tmp_path_factory.mktemp("relations")
    tiny.bert(folder / "model")
    recipe = tiny.recipe(folder, task="relation-extraction")
    model, tokenizer = load_base(recipe, LABELS).eval(), load_tokenizer(recipe)
    model.save_pretrained(folder / "saved", safe_serialization=True)
    tokenizer.save_pretrained(folder / "saved")
    return model, tokenizer, folder


def test_markers_are_single_tokens_with_rows_in_the_embedding(made: tuple[Any, Any, Path]) -> None:
    from tokenizers import Tokenizer

    model, tokenizer, folder = made
    ids = tokenizer.convert_tokens_to_ids(list(MARKERS))
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == max(ids) + 1
    assert model.config.marker_token_id == ids
    text = "the <e1>lamp</e1> of my <E2>kitchen</e2>"
    in_the_app = Tokenizer.from_file(str(folder / "saved" / "tokenizer.json"))
    assert in_the_app.encode(text).ids == tokenizer(text)["input_ids"]
    assert [i for i in in_the_app.encode(text.lower()).ids if i in ids] == ids
    assert ids[2] not in in_the_app.encode(text).ids, "a marker is spelled exactly"


def test_the_same_model_after_reload(made: tuple[Any, Any, Path]) -> None:
    model, tokenizer, folder = made
    batch = dict(
        tokenizer(["<e1>lamp</e1> and <e2>heater</e2>", "my <e2>song</e2> in the <e1>album</e1> now"], padding=True, return_tensors="pt")
    )
    again = load_merged(folder / "saved", "relation-extraction")
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, again(**batch).logits)
    assert again.config.id2label == dict(enumerate(LABELS))


def test_an_adapter_teaches_the_markers(tmp_path: Path) -> None:
    """They are new tokens: frozen at random, they would say nothing."""
    from edgetune.methods import adapters

    tiny.bert(tmp_path / "model")
    recipe = tiny.recipe(tmp_path, task="relation-extraction", method="lora")
    model, tokenizer = adapters.attach(recipe, LABELS), load_tokenizer(recipe)
    batch = dict(tokenizer(["<e1>lamp</e1> and <e2>heater</e2>"], return_tensors="pt"))
    before = load_base(recipe, LABELS).get_input_embeddings().weight.detach().clone()
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=1.0)
    model(**batch).logits[0, 0].backward()
    optimizer.step()
    (tmp_path / "adapter").mkdir()
    adapters.save(model, tmp_path / "adapter")
    merged = adapters.merge(recipe, tmp_path / "adapter", LABELS)
    moved = (merged.model.get_input_embeddings().weight != before).any(-1).nonzero().flatten().tolist()
    assert moved == [i for i in sorted(model.config.marker_token_id) if i in batch["input_ids"][0].tolist()]
    with torch.no_grad():
        expected = model.eval()(**batch).logits
        assert torch.allclose(merged.model(**batch).logits, expected, atol=1e-5)
        assert torch.allclose(merged.reference(**batch).logits, expected, atol=1e-5)


def test_it_reads_the_states_that_open_the_entities(made: tuple[Any, Any, Path]) -> None:
    model, tokenizer, _ = made
    batch = tokenizer("my <e2>song</e2> in the <e1>album</e1> now", return_tensors="pt")
    ids = batch["input_ids"][0].tolist()
    one, _, two, _ = (ids.index(i) for i in model.config.marker_token_id)
    assert two < one
    with torch.no_grad():
        hidden = model.bert(**batch).last_hidden_state[0]
        by_hand = model.classifier(torch.cat([hidden[one], hidden[two]]))
        assert torch.allclose(model(**batch).logits[0], by_hand, atol=1e-6)
        without = tokenizer("my song", return_tensors="pt")
        assert torch.allclose(model(**without).logits[0], model.classifier.bias, atol=1e-6), "no entity: zeros"


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "modernbert", "albert"])
def test_any_encoder_of_transformers(kind: str, tmp_path: Path) -> None:
    """A base is saved by its own class and loaded by ours: the states are the same."""
    from transformers import AutoConfig, AutoModel

    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 60,
        "pad_token_id": 0,
    }
    if kind == "distilbert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "vocab_size": 60}
    if kind == "albert":
        sizes["embedding_size"] = 16
    config = AutoConfig.for_model(kind, **sizes)
    torch.manual_seed(0)
    base = AutoModel.from_config(config).eval()
    base.save_pretrained(tmp_path)
    config.marker_token_id, config.num_labels = [50, 51, 52, 53], 3
    model = EntityClassifier.from_pretrained(tmp_path, config=config, dtype=torch.float32, use_safetensors=True).eval()
    ids = torch.tensor([[7, 50, 8, 51, 9, 52, 10, 53, 11]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        hidden = base(input_ids=ids, attention_mask=mask).last_hidden_state[0]
        expected = model.classifier(torch.cat([hidden[1], hidden[5]]))
        assert torch.allclose(model(input_ids=ids, attention_mask=mask).logits[0], expected, atol=1e-5)
