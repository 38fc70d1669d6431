"""Bundles in Node: onnxruntime-web computes the same, and transformers.js's tokenizer reads the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tools import missing, needs

from edgetune.artifact import file_digest
from edgetune.errors import GateError
from edgetune.runtime import cache, node
from edgetune.runtime.verify import verify


@pytest.fixture(autouse=True)
def _web() -> None:
    needs("node")
    if cache.installed(node.NAME) is None:
        missing("onnxruntime-web")


def changed(bundle: Path, copy: Path, name: str, text: str) -> Path:
    """A copy with another file `name`, signed."""
    shutil.copytree(bundle, copy)
    (copy / name).write_text(text, "utf-8")
    facts = json.loads((copy / "edgetune.json").read_text())
    facts["sha256"][name] = file_digest(copy / name)
    (copy / "edgetune.json").write_text(json.dumps(facts))
    return copy


def test_it_computes_and_reads_the_same(classifier: Path, generator: Path) -> None:
    for bundle in (classifier, generator):
        found = verify(bundle, "node")
        assert found["golden"]["passed"] is True
        assert found["golden"]["rows"] >= 100
        assert found["golden"]["max_error"] < 1e-4
        assert "onnxruntime-web 1." in found["on"]
    assert found["golden"]["completions"]["rows"] > 10


def test_another_output_is_refused(classifier: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (classifier / "golden.jsonl").read_text().splitlines()]
    rows[9]["logits"][1] -= 1
    bad = changed(classifier, tmp_path / "bad", "golden.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(GateError, match=r"1 of 110 golden vectors .* onnxruntime-web") as caught:
        verify(bad, "node")
    assert "row 10" in caught.value.details[0]


def test_another_tokenizer_is_refused(classifier: Path, tmp_path: Path) -> None:
    words = json.loads((classifier / "tokenizer.json").read_text())
    words["normalizer"]["lowercase"] = False
    bad = changed(classifier, tmp_path / "bad", "tokenizer.json", json.dumps(words))
    with pytest.raises(GateError) as caught:
        verify(bad, "node")
    assert "other token ids" in caught.value.details[0]


def test_a_cut_text_keeps_its_last_token(classifier: Path) -> None:
    """The golden texts hold one that is longer than the model reads."""
    facts = json.loads((classifier / "edgetune.json").read_text())
    rows = [json.loads(line)["input_ids"] for line in (classifier / "golden.jsonl").read_text().splitlines()]
    assert any(len(ids) == facts["max_length"] for ids in rows)
    assert verify(classifier, "node")["golden"]["failures"] == []
