"""Entities as transformers' pipeline finds them, with their places in the text."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import BertForTokenClassification, BertModel, pipeline

from edgetune.runtime.answers.entities import deciding, entities
from edgetune.runtime.process import run

TAGS = ["O", "B-place", "I-place", "B-person", "I-person"]
TEXTS = [
    "Anna Lopez flew from Berlin to New York-Newark on Monday.",
    "  two  blanks, and (brackets)\tand a tab ",
    "Ångström über Łódź! 今天天气怎么样? supercalifragilisticexpialidocious",
    "🙂 lights on 💡 e=mc²",
    "x",
]


def test_they_are_those_of_the_pipeline(made):
    one = made(BertForTokenClassification, "token-classification", labels=TAGS)
    pipe = pipeline("token-classification", model=one.model, tokenizer=one.tokenizer, aggregation_strategy="first")
    several = 0
    for text, answer in zip(TEXTS, one.bundle.predict(TEXTS), strict=True):
        expected = [found for found in pipe(text) if found["entity_group"] != "O"]
        assert [(f["label"], f["start"], f["end"]) for f in answer["entities"]] == [
            (f["entity_group"], f["start"], f["end"]) for f in expected
        ]
        assert [f["confidence"] for f in answer["entities"]] == pytest.approx([float(f["score"]) for f in expected], abs=1e-5)
        assert [f["text"] for f in answer["entities"]] == [text[f["start"] : f["end"]] for f in expected]
        several += sum(" " in f["text"] for f in answer["entities"])
    assert several > 0, "no entity of more than a word: the test would prove nothing"
    assert one.bundle.predict(["Berlin " * 60])[0]["cut"] is True


def test_golden_rows_hold_some_of_the_tokens(made):
    one = made(BertForTokenClassification, "token-classification", labels=TAGS)
    long = max(one.golden, key=lambda row: len(row["input_ids"]))
    places = [place for place, _ in long["logits"]]
    assert (len(long["input_ids"]), len(places), places[0], places[-1]) == (48, 16, 0, 47)
    found = run(one.folder, ["--golden"]).found
    assert (found["passed"], found["rows"], found["failures"]) == (True, len(one.golden), [])
    long["logits"][7][1][3] += 0.5
    (one.folder / "golden.jsonl").write_text(json.dumps(long) + "\n")
    [failure] = run(one.folder, ["--golden"]).found["failures"]
    assert failure["what"] == "other logits"


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("O O O O", []),
        ("B-a I-a O B-b", [("a", 0, 2), ("b", 3, 4)]),
        ("B-a B-a I-b I-b", [("a", 0, 1), ("a", 1, 2), ("b", 2, 4)]),
        ("O I-a I-a O", [("a", 1, 3)]),
        ("I-a O I-a I-b", [("a", 0, 1), ("a", 2, 3), ("b", 3, 4)]),
    ],
)
def test_tags_are_read_as_seqeval_reads_them(tags, expected):
    from seqeval.metrics.sequence_labeling import get_entities

    names = ["O", "B-a", "I-a", "B-b", "I-b"]
    told = tags.split()
    text = "one two three four"
    places = [(0, 3), (4, 7), (8, 13), (14, 18)]
    logits = np.eye(5, dtype=np.float32)[[names.index(tag) for tag in told]]
    starts, ends = ([place[i] for place in places] for i in (0, 1))
    found = [(f["label"], starts.index(f["start"]), ends.index(f["end"]) + 1) for f in entities(text, places, logits, names)]
    assert found == expected == [(kind, start, end + 1) for kind, start, end in get_entities(told)]


def test_the_first_token_of_a_word_decides():
    text = "don't re-do it, 東京で"
    places = [(0, 3), (3, 4), (4, 5), (6, 8), (8, 9), (9, 11), (12, 14), (14, 15), (16, 17), (17, 18), (18, 19)]
    assert deciding(text, places) == [(start, end, i) for i, (start, end) in enumerate(places)]
    pieces = [(0, 0), (0, 2), (2, 4), (4, 5), (6, 9), (9, 10), (10, 11), (12, 14), (0, 0)]  # of some other tokenizer; nothing after "it"
    assert deciding(text, pieces) == [(0, 3, 1), (3, 4, 2), (4, 5, 3), (6, 9, 4), (9, 11, 5), (12, 14, 7)]


class TwoHeads(torch.nn.Module):
    def __init__(self, config) -> None:
        super().__init__()
        self.bert = BertModel._from_config(config, attn_implementation="eager")
        self.intents, self.slots = torch.nn.Linear(32, 3), torch.nn.Linear(32, len(TAGS))

    @classmethod
    def _from_config(cls, config, attn_implementation):
        return cls(config)

    def forward(self, **inputs):
        hidden = self.bert(**inputs).last_hidden_state
        return {"logits": self.intents(hidden[:, 0]), "slot_logits": self.slots(hidden)}


def test_an_intent_and_its_slots(made):
    intents = ["play", "book", "weather"]
    trust = {"temperature": 2.0, "reject_below": 0.5}
    outputs = ("logits", "slot_logits")
    one = made(TwoHeads, "intent-and-slots", labels=[*(f"intent:{name}" for name in intents), *TAGS], outputs=outputs, confidence=trust)
    for text in TEXTS:
        [answer] = one.bundle.predict([text])
        with torch.no_grad():
            found = one.model(**one.tokenizer(text, return_tensors="pt"))
        chances = torch.softmax(found["logits"][0].double() / 2, -1)
        assert answer["intent"] == (intents[int(chances.argmax())] if chances.max() >= 0.5 else None)
        assert answer["confidence"] == pytest.approx(float(chances.max()), abs=1e-5)
        offsets = one.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        slots = entities(text, offsets, found["slot_logits"][0].numpy(), TAGS)
        assert [(f["start"], f["end"], f["label"]) for f in answer["slots"]] == [(f["start"], f["end"], f["label"]) for f in slots]
        assert one.bundle.line(answer).split("\t")[0] == (answer["intent"] or "(no intent)")
    assert one.golden[0].keys() >= {"logits", "slot_logits"}
    assert isinstance(one.golden[0]["slot_logits"][0][1], list) and isinstance(one.golden[0]["logits"][0], float)
    assert run(one.folder, ["--golden"]).found["passed"]


class Embedder(torch.nn.Module):
    def __init__(self, config) -> None:
        super().__init__()
        self.bert = BertModel._from_config(config, attn_implementation="eager")

    @classmethod
    def _from_config(cls, config, attn_implementation):
        return cls(config)

    def forward(self, attention_mask, **inputs):
        hidden = self.bert(attention_mask=attention_mask, **inputs).last_hidden_state * attention_mask[..., None]
        return {"sentence_embedding": torch.nn.functional.normalize(hidden.sum(1) / attention_mask.sum(1, keepdim=True), dim=-1)}


def test_a_text_as_a_vector(made):
    one = made(Embedder, "sentence-similarity", outputs=("sentence_embedding",))
    for text, answer in zip(TEXTS, one.bundle.predict(TEXTS), strict=True):
        with torch.no_grad():
            hidden = one.model.bert(**one.tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert answer["embedding"] == pytest.approx((hidden / hidden.norm()).tolist(), abs=1e-5)
    assert one.bundle.line({"embedding": [0.5] * 8}) == "0.5000 0.5000 0.5000 0.5000 0.5000 0.5000 ... (8 numbers)"
    assert len(one.golden[0]["sentence_embedding"]) == 32
    assert run(one.folder, ["--golden"]).found["passed"]
