"""Pairs, tags of tokens and questions in Node: the same inputs and outputs as here."""

from __future__ import annotations

import json

import pytest
from tools import missing, needs
from transformers import BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification

from edgetune.runtime import cache, node

PAIR = {"asks": ("text", "text_pair"), "labels": ["yes", "no", "perhaps"]}
CASES = {
    "pairs": (BertForSequenceClassification, "text-classification", PAIR),
    "pairs cut on the left": (BertForSequenceClassification, "text-classification", {**PAIR, "truncation_side": "left"}),
    "tags": (BertForTokenClassification, "token-classification", {"labels": ["O", "B-a", "I-a"]}),
    "questions": (
        BertForQuestionAnswering,
        "question-answering",
        {"asks": ("question", "context"), "outputs": ("start_logits", "end_logits"), "max_length": 96},
    ),
}


@pytest.fixture(autouse=True)
def _web() -> None:
    needs("node")
    if cache.installed(node.NAME) is None:
        missing("onnxruntime-web")


@pytest.mark.parametrize("case", CASES)
def test_it_computes_and_reads_the_same(made, tokenizer, case):
    kind, task, facts = CASES[case]
    tokenizer.truncation_side = facts.get("truncation_side", "right")
    one = made(kind, task, **facts)
    tokenizer.truncation_side = "right"
    assert max(len(row["input_ids"]) for row in one.golden) == one.bundle.max_length, "nothing is cut: the test would prove less"
    with node.host("node") as host:
        found = host.run(one.folder, ["--golden"]).found
        assert (found["passed"], found["rows"], found["failures"]) == (True, len(one.golden), [])
        assert 0 < found["max_error"] < 1e-4
        row = json.loads(json.dumps(one.golden[0]))
        name = next(name for name in row if name.endswith("logits"))
        part = row[name]
        while isinstance(part[-1], list):
            part = part[-1]
        part[-1] += 5
        (one.folder / "golden.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
        [failure, *_] = host.run(one.folder, ["--golden"]).found["failures"]
        assert failure["what"] == f"other {name}"
