"""Vectors of texts: pooling and loss against sentence-transformers, the order of pairs, and what a search finds."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModel, BertConfig, BertModel

from edgetune.errors import ModelError
from edgetune.fit import gate
from edgetune.tasks import get, padded
from edgetune.tasks import sentence_similarity as task
from edgetune.tasks.sentence_encoder import POOLING, SentenceEncoder


@pytest.fixture
def library() -> Any:
    if os.environ.get("CI") == "true":
        return import_module("sentence_transformers")
    return pytest.importorskip("sentence_transformers", reason="the library that the formula is held against is not installed")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("model"))


def by_first_id(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The first id, as an angle in degrees, as a vector."""
    angle = np.radians(given["input_ids"][:, 0].astype(np.float64))
    return {"sentence_embedding": np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)}


def pair(first: list[int], second: list[int], score: float) -> dict[str, Any]:
    return {"input_ids": first, "pair": second, "score": score}


def test_encode_reads_each_text_alone(base: Path) -> None:
    tokenizer = tiny.tokenizer(base)
    rows = [{"text": "play the song", "text_pair": "lamp " * 30, "score": 2}, {"text": "gate", "text_pair": "a key", "score": 1}]
    found = task.encode(rows, tokenizer, max_length=16, labels=())
    assert found.examples[1] == pair(tokenizer("gate")["input_ids"], tokenizer("a key")["input_ids"], 1)
    assert found.cut == 1
    batch = task.collate(found.examples, 0)
    assert batch["input_ids"].shape[0] == 4
    assert batch["input_ids"][2, :3].tolist() == found.examples[1]["input_ids"]
    assert batch["labels"].tolist() == [2, 1]
    single = task.encode([{"text": "gate"}], tokenizer, max_length=16, labels=())
    assert single.examples == [{"input_ids": tokenizer("gate")["input_ids"]}], "an app asks for the vector of one text"


def test_the_loss_is_cosent_of_the_library(library: Any) -> None:
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    chance = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(12, 5, generator=chance), dim=-1)
    wanted = torch.tensor([0.0, 1.0, 1.0, 3.0, 2.0, 5.0])
    theirs = CoSENTLoss(torch.nn.Identity()).compute_loss_from_embeddings([vectors[0::2], vectors[1::2]], wanted)
    ours = task.loss({"sentence_embedding": vectors}, {"labels": wanted}, 0.1)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_the_loss_by_hand() -> None:
    """Two pairs in the wrong order, by 0.5."""
    vectors = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0.5, 0.75**0.5]])
    expected = np.log(1 + np.exp(20 * 0.5))
    assert float(task.loss({"sentence_embedding": vectors}, {"labels": torch.tensor([0.0, 1.0])})) == pytest.approx(expected, rel=1e-5)
    assert float(task.loss({"sentence_embedding": vectors}, {"labels": torch.tensor([1.0, 1.0])})) == 0, "equal scores have no order"


@pytest.mark.parametrize("size", [1, 3, 64])
def test_scores_are_cosines_in_the_order_of_the_rows(size: int) -> None:
    examples = [pair([0] * n, [angle] * m, angle) for n, angle, m in ((3, 60, 1), (1, 0, 5), (2, 90, 2))]

    def forward(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        assert len(given["input_ids"]) <= size, "a quantised graph reads each text alone"
        return by_first_id(given)

    found = task.score(forward, examples, 7, size)
    np.testing.assert_allclose(found.value, [0.5, 1, 0], atol=1e-6)
    assert task.quality(found) == pytest.approx(-1)
    part = found.take(np.array([2, 0]))
    np.testing.assert_allclose(part.value, [0, 0.5], atol=1e-6)
    assert part.logits is not None and part.logits.shape == (4, 2)
    np.testing.assert_allclose((part.logits[0::2] * part.logits[1::2]).sum(-1), part.value, atol=1e-6)


def test_recall_is_over_pairs_that_are_alike() -> None:
    """10 and 20 degrees: their own second texts are the second and the first in nearness; the same text is not found for itself."""
    examples = [pair([10], [13], 5), pair([20], [21], 4.5), pair([50], [11], 0), pair([12], [10], 1)]
    found = task.metrics(task.score(by_first_id, examples, 0), ())
    assert found["recall_at_1"] == 0.5
    assert found["recall_at_10"] == 1


def test_the_gate_decides_on_spearman_pair_by_pair() -> None:
    chance = np.random.default_rng(0)
    examples = [pair([0], [int(angle)], 90 - angle + 5 * float(chance.normal())) for angle in chance.integers(1, 90, 300)]
    base = task.score(by_first_id, examples, 0)

    def noisy(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        shaken = {**given, "input_ids": given["input_ids"] + chance.integers(0, 30, given["input_ids"].shape)}
        return by_first_id(shaken)

    candidate = task.score(noisy, examples, 0)
    verdict = gate.decide(get("sentence-similarity"), base, candidate, 0.01)
    assert verdict.loss == pytest.approx(task.quality(base) - task.quality(candidate))
    assert verdict.rows == 300
    assert not verdict.passed(strict=False) and verdict.bound > verdict.loss
    assert gate.decide(get("sentence-similarity"), base, base, 0.01).proven


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_and_length(base: Path, pooling: str) -> None:
    plain = BertModel.from_pretrained(base).eval()
    model = SentenceEncoder(plain, pooling).eval()
    rows = [[2, 8, 9, 3], [2, 7, 3]]
    given = {name: torch.from_numpy(value) for name, value in padded([{"input_ids": row} for row in rows], 0).items()}
    with torch.no_grad():
        found = model(**given)["sentence_embedding"]
        for row, vector in zip(rows, found, strict=True):
            hidden = plain(torch.tensor([row])).last_hidden_state[0]
            expected = hidden[0] if pooling == "cls" else hidden.mean(0)
            torch.testing.assert_close(vector, expected / expected.norm(), atol=1e-5, rtol=1e-4)


def test_the_directory_is_the_bases_own_and_says_how_to_pool(base: Path, tmp_path: Path) -> None:
    SentenceEncoder.from_pretrained(base).save_pretrained(tmp_path / "mean", safe_serialization=True)
    assert type(AutoModel.from_pretrained(tmp_path / "mean")) is BertModel
    model = SentenceEncoder(BertModel.from_pretrained(base), "cls")
    model.save_pretrained(tmp_path / "cls")
    assert SentenceEncoder.from_pretrained(tmp_path / "mean").pooling == "mean"
    again, found = SentenceEncoder.from_pretrained(tmp_path / "cls", output_loading_info=True)
    assert again.pooling == "cls"
    assert not found["missing_keys"]
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight)


def test_pooling_that_is_not_known_is_refused(base: Path, tmp_path: Path) -> None:
    SentenceEncoder(BertModel(BertConfig(vocab_size=60, **tiny.SIZES))).save_pretrained(tmp_path)
    (tmp_path / POOLING).write_text(json.dumps({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}))
    with pytest.raises(ModelError, match="pools in a way that edgetune does not know"):
        SentenceEncoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentence_transformers_gives_the_same_vectors(base: Path, tmp_path: Path, library: Any, pooling: str) -> None:
    tokenizer = tiny.tokenizer(tmp_path)
    model = SentenceEncoder(BertModel.from_pretrained(base), pooling).eval()
    model.save_pretrained(tmp_path)
    theirs = library.SentenceTransformer(str(tmp_path), device="cpu")
    texts = ["play the song", "a gate in the kitchen, please"]
    given = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        ours = model(**given)["sentence_embedding"].numpy()
    np.testing.assert_allclose(theirs.encode(texts), ours, atol=1e-5)


def test_shared_words_are_a_baseline_without_vectors() -> None:
    from edgetune.methods.baselines import shared_words

    train = [pair([1, 5, 2], [1, 6, 2], 0)]
    test = [pair([1, 5, 2], [1, 5, 2], 9), pair([1, 5, 2], [1, 6, 2], 3), pair([5], [6], 0)]
    found = shared_words(None, train, test, 0, 0, None)  # type: ignore[arg-type]
    assert found.value[0] == pytest.approx(1)
    assert found.value[0] > found.value[1] > found.value[2] == 0
    assert task.metrics(found, ())["spearman"] == pytest.approx(1)
    assert "recall_at_1" not in task.metrics(found, ())
