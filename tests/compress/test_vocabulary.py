"""A pruned vocabulary is the old one on what was kept, spells everything else, and its model says the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from edgetune.compress import vocabulary
from edgetune.errors import ModelError, RecipeError

TEXTS = [text for text, _ in tiny.sentences(60)]
FEW = ["play the song now", "dark lamp"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.classifier(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def small(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("small")
    return out, vocabulary.prune(whole, FEW, 0, out)


def logits(folder: Path, texts: list[str]) -> torch.Tensor:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])


def test_what_the_texts_use_and_what_spells_stays(whole: Path, small: tuple[Path, dict[str, Any]]) -> None:
    out, facts = small
    new, old = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(whole)
    used = {piece for text in FEW for piece in old.tokenize(text)}
    assert {"play", "song", "dark", "lamp"} <= used <= set(new.get_vocab())
    assert "volume" in old.get_vocab() and "volume" not in new.get_vocab()
    assert new.tokenize("volume") == ["v", "##o", "##l", "##u", "##m", "##e"]
    assert facts["entries"] == len(new) == sum(facts[f"from_{name}"] for name in ("special", "texts", "spelling", "frequency"))
    assert facts["entries_before"] == len(old) and facts["from_special"] == 5 and facts["from_frequency"] == 0
    assert facts["unknown"] == facts["unknown_before"] > 0
    assert facts["texts"] == 2 and facts["texts_changed"] == 0
    json.dumps(facts)


def test_the_model_says_the_same(whole: Path, small: tuple[Path, dict[str, Any]]) -> None:
    out, facts = small
    torch.testing.assert_close(logits(out, FEW), logits(whole, FEW), rtol=0, atol=1e-6)
    assert not torch.allclose(logits(out, ["volume up"]), logits(whole, ["volume up"]), atol=1e-4)  # its pieces are not all there
    assert facts["parameters_before"] - facts["parameters"] == 32 * (facts["entries_before"] - facts["entries"])
    config = json.loads((out / "config.json").read_text("utf-8"))
    assert config["vocab_size"] == facts["entries"]
    assert config["id2label"] == json.loads((whole / "config.json").read_text("utf-8"))["id2label"]


def test_size_is_filled_with_frequent_pieces(whole: Path, small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    least = small[1]["entries"]
    facts = vocabulary.prune(whole, FEW, least + 3, tmp_path)
    assert facts["entries"] == least + 3 and facts["from_frequency"] == 3
    old, new = AutoTokenizer.from_pretrained(whole).get_vocab(), AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    smallest = AutoTokenizer.from_pretrained(small[0]).get_vocab()
    earliest = sorted(set(old) - set(smallest), key=old.__getitem__)[:3]
    assert set(new) - set(smallest) == set(earliest)


def test_more_than_there_is_keeps_everything(whole: Path, tmp_path: Path) -> None:
    facts = vocabulary.prune(whole, TEXTS, 10**6, tmp_path)
    assert facts["entries"] == facts["entries_before"]
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == AutoTokenizer.from_pretrained(whole).get_vocab()


def test_a_size_that_is_too_small_names_the_smallest(whole: Path, small: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    least = small[1]["entries"]
    with pytest.raises(RecipeError, match=f"needs {least} for") as caught:
        vocabulary.prune(whole, FEW, least - 1, tmp_path / "out")
    assert str(least) in str(caught.value.mend)
    assert not (tmp_path / "out").exists()
    assert vocabulary.prune(whole, FEW, least, tmp_path / "out")["entries"] == least


def test_a_folder_without_tokenizer_json_is_refused(whole: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        vocabulary.prune(tmp_path, FEW, 0, tmp_path / "out")
