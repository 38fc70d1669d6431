"""Pairs of texts: read as transformers reads them, type by type, cut where it cuts; and the bundle's own check."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from transformers import BertForSequenceClassification

from edgetune.runtime.worker import Bundle, BundleError

ASKS = ("text", "text_pair")
LABELS = ["entailment", "neutral", "contradiction"]
PAIRS = [
    ("a b", "x"),
    ("check the weather " * 9, "no"),
    ("no", "check the weather " * 9),
    ("turn on the light " * 7, "café " * 40),
    ("今天", "\u200b"),
]


@pytest.fixture
def pair(made):
    return made(BertForSequenceClassification, "text-classification", asks=ASKS, labels=LABELS)


def test_a_pair_is_answered_as_transformers_does(pair):
    for first, second in PAIRS:
        inputs = pair.tokenizer(first, second, truncation=True, max_length=48, return_tensors="pt")
        [row], _ = pair.bundle.read({"text": first, "text_pair": second})
        assert row == {name: inputs[name][0].tolist() for name in ("input_ids", "token_type_ids")}
        assert 1 in row["token_type_ids"]
        with torch.no_grad():
            chances = torch.softmax(pair.model(**inputs).logits[0].double(), -1)
        [answer] = pair.bundle.predict([{"text": first, "text_pair": second, "label": "of no interest"}])
        assert answer["label"] == LABELS[int(chances.argmax())]
        assert answer["confidence"] == pytest.approx(float(chances.max()), abs=1e-5)
        assert answer["cut"] == (len(pair.tokenizer(first, second)["input_ids"]) > 48)


def test_the_second_text_matters_and_so_do_the_types(pair):
    same = [pair.bundle.predict([{"text": "check the weather", "text_pair": text}])[0]["confidence"] for text in ("a large file", "now")]
    assert same[0] != same[1]
    [row], _ = pair.bundle.read("check the weather\ta large file")
    plain = {"input_ids": row["input_ids"]}
    assert abs(pair.bundle.outputs([row])["logits"] - pair.bundle.outputs([plain])["logits"]).max() > 1e-3


def test_what_lacks_a_text_is_refused(pair):
    for item in ("only one", "one\ttwo\tthree", {"text": "a"}, {"text": "a", "text_pair": 3}, 7, None):
        with pytest.raises(BundleError, match="this model asks for text and text_pair"):
            pair.bundle.predict([item])


def test_the_command_line_takes_json_or_a_tab(pair):
    item = {"text": "check the weather", "text_pair": "a large file"}
    [expected] = pair.bundle.predict([item])
    command = [sys.executable, "-B", str(pair.folder / "run.py"), "--json", json.dumps(item), "check the weather\ta large file"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [expected, expected]
    done = subprocess.run([*command[:3], "alone"], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: this model asks for text and text_pair: give each as a text\n"


def test_golden_rows_have_both_texts_and_their_types(pair):
    from edgetune.runtime.process import run

    assert {"text", "text_pair", "input_ids", "token_type_ids", "logits"} == pair.golden[0].keys()
    assert max(len(row["input_ids"]) for row in pair.golden) == 48
    done = run(pair.folder, ["--golden"])
    assert (done.exit_code, done.found["passed"], done.found["rows"]) == (0, True, len(pair.golden)), done.stderr
    rows = [json.loads(json.dumps(row)) for row in pair.golden[:3]]
    rows[0]["token_type_ids"][-1] = 0
    rows[1]["text_pair"] = f"more {rows[1]['text_pair']}"
    rows[2]["logits"][1] += 1
    (pair.folder / "golden.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    failures = run(pair.folder, ["--golden"]).found["failures"]
    assert [failure["what"] for failure in failures] == ["other token ids", "other token ids", "other logits"]


def test_pairs_are_timed_as_they_are(pair, tmp_path):
    from edgetune.runtime.process import run

    items = [dict(zip(ASKS, texts, strict=True)) for texts in PAIRS]
    (tmp_path / "items").write_text("".join(f"{json.dumps(item)}\n" for item in [*items, "no pair", 3]))
    for given in (["--texts", str(tmp_path / "items")], []):
        found = run(pair.folder, ["--benchmark", "--runs", "4", "--sequence", "real,7", *given]).found
        assert [item["lengths"] for item in found["latency"]] == ["real", "fixed"]
        assert len(found["latency"][0]["text_ms"]) == 4
    lengths = [len(pair.bundle.read(item)[0][0]["input_ids"]) for item in items]
    found = run(pair.folder, ["--benchmark", "--runs", "4", "--sequence", "real", "--texts", str(tmp_path / "items")]).found
    assert found["latency"][0]["sequence"] == round(sum(lengths) / len(lengths))


def test_an_older_bundle_asks_for_a_text(classifier, tmp_path):
    import shutil

    copy = shutil.copytree(classifier, tmp_path / "copy")
    facts = json.loads((copy / "edgetune.json").read_text())
    del facts["asks"]
    (copy / "edgetune.json").write_text(json.dumps(facts))
    assert Bundle(copy).predict(["turn on the light"]) == Bundle(classifier).predict([{"text": "turn on the light"}])
