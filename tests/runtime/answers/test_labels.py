"""Several labels, numbers and marked entities: as transformers' pipeline says them."""

from __future__ import annotations

import pytest
from transformers import BertForSequenceClassification, pipeline

from edgetune.runtime.process import run
from edgetune.runtime.worker import BundleError

LABELS = ["music", "kitchen", "light", "loud", "night"]
TEXTS = ["turn on the kitchen light", "x", "check the weather " * 20, "今天天气怎么样", "café crème brûlée now"]


def said(made, text: str, function: str) -> dict[str, float]:
    pipe = pipeline("text-classification", model=made.model, tokenizer=made.tokenizer, top_k=None, function_to_apply=function)
    [found] = pipe([text], truncation=True, max_length=48)
    return {one["label"]: one["score"] for one in found}


def test_several_labels(made):
    thresholds = [0.5, 0.2, 0.9, 0.01, 1.0]
    one = made(BertForSequenceClassification, "multi-label-classification", labels=LABELS, confidence={"thresholds": thresholds})
    told = 0
    for text, answer in zip(TEXTS, one.bundle.predict(TEXTS), strict=True):
        expected = said(one, text, "sigmoid")
        order = sorted(expected, key=lambda label: -expected[label])
        assert answer["labels"] == [label for label in order if expected[label] >= thresholds[LABELS.index(label)]]
        shown = [label for i, label in enumerate(order) if i < 3 or label in answer["labels"]]
        assert answer["scores"] == pytest.approx({label: expected[label] for label in shown}, abs=1e-5)
        assert list(answer["scores"]) == shown
        told += len(answer["labels"])
    assert 0 < told < len(TEXTS) * len(LABELS), "the thresholds do not matter: the test would prove nothing"
    assert [answer["cut"] for answer in one.bundle.predict(TEXTS)] == [False, False, True, False, False]
    assert one.bundle.line({"labels": ["loud", "night"], "scores": {"loud": 0.75, "night": 0.5}}) == "loud, night\t0.750 0.500"
    assert one.bundle.line({"labels": [], "scores": {"loud": 0.2}}) == "(no label)"
    assert run(one.folder, ["--golden"]).found["passed"]


def test_without_thresholds_a_half_decides(made):
    one = made(BertForSequenceClassification, "multi-label-classification", labels=LABELS)
    for text, answer in zip(TEXTS, one.bundle.predict(TEXTS), strict=True):
        assert set(answer["labels"]) == {label for label, score in said(one, text, "sigmoid").items() if score >= 0.5}


def test_a_number(made):
    one = made(BertForSequenceClassification, "text-regression", asks=("text", "text_pair"))
    answers = one.bundle.predict([f"{text}\t{TEXTS[0]}" for text in TEXTS])
    pipe = pipeline("text-classification", model=one.model, tokenizer=one.tokenizer, function_to_apply="none")
    for text, answer in zip(TEXTS, answers, strict=True):
        [expected] = pipe([{"text": text, "text_pair": TEXTS[0]}], truncation=True, max_length=48)
        assert answer["score"] == pytest.approx(expected["score"], abs=1e-4)
    assert len({round(answer["score"], 4) for answer in answers}) == len(TEXTS)
    assert one.bundle.line({"score": -2.34567}) == "-2.346"
    assert run(one.folder, ["--golden"]).found["passed"]


def test_marked_entities(made, monkeypatch):
    from edgetune.bundle import golden

    plain = golden.items
    monkeypatch.setattr(golden, "items", lambda texts, asks: [{"text": f"<e1>{i['text']}</e1> <e2>x</e2>"} for i in plain(texts, asks)])
    one = made(BertForSequenceClassification, "relation-extraction", labels=LABELS)
    marked = "the <e1>light</e1> of a <e2>file</e2>"
    [answer] = one.bundle.predict([marked])
    expected = said(one, marked, "softmax")
    assert answer["label"] == max(expected, key=expected.__getitem__)
    assert answer["confidence"] == pytest.approx(max(expected.values()), abs=1e-5)
    for text in ("no marks", "the <e1>light of a <e2>file</e2>", "</e1>the<e1> <e2>file</e2>", f"{marked} <e1>again</e1>"):
        with pytest.raises(BundleError, match="mark the two entities"):
            one.bundle.predict([text])
    found = run(one.folder, ["--benchmark", "--runs", "2", "--sequence", "real"]).found  # no marks come out of token ids
    assert len(found["latency"][0]["text_ms"]) == 2
