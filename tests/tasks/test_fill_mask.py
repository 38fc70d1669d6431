"""Gaps in training and in scoring, and what a loss and a perplexity over them are; against a computation by hand and transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgetune.errors import ModelError
from edgetune.tasks import fill_mask as task

TEXTS = [text for text, _ in tiny.sentences(40)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.tokenizer(tmp_path_factory.mktemp("words"))


def rows(*texts: str) -> list[dict[str, Any]]:
    return [{"text": text} for text in texts]


def uniform(given: Mapping[str, np.ndarray], entries: int = 300) -> dict[str, np.ndarray]:
    return {"logits": np.zeros((*given["input_ids"].shape, entries), dtype=np.float32)}


def test_long_lines_are_read_in_pieces_and_none_is_lost(tokenizer: Any) -> None:
    text = " ".join(TEXTS)
    found = task.encode(rows(text, "lamp"), tokenizer, max_length=16)
    assert [example["item"] for example in found.examples] == [0] * (len(found.examples) - 1) + [1]
    assert all(len(example["input_ids"]) <= 16 for example in found.examples)
    read = [example["input_ids"][place] for example in found.examples[:-1] for place in example["free"]]
    assert read == tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def test_scored_gaps_are_fixed_and_special_tokens_are_never_one(tokenizer: Any) -> None:
    one, two = (task.encode(rows(*texts), tokenizer, max_length=64).examples for texts in (TEXTS, TEXTS[::-1]))
    assert [example["masked"] for example in one] == [example["masked"] for example in two][::-1], "whatever stands beside it"
    seen: list[np.ndarray] = []

    def watched(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        seen.append(given["input_ids"])
        return uniform(given)

    scores = task.score(watched, one[:1], 0)
    ids = np.array(one[0]["input_ids"])
    gaps = np.flatnonzero(seen[0][0] != ids)
    assert (seen[0][0][gaps] == tokenizer.mask_token_id).all()
    assert gaps.tolist() == one[0]["masked"]
    assert scores.weight.tolist() == [len(gaps)] == [max(1, round(0.15 * (len(ids) - 2)))]
    assert not {0, len(ids) - 1} & set(gaps.tolist())


def test_a_text_without_a_word_is_left_out(tokenizer: Any) -> None:
    found = task.encode(rows("lamp", "[MASK]", "\u200b"), tokenizer, max_length=64)
    assert [i for i, _ in found.left_out] == [1, 2]
    tokenizer = type("Without", (), {"mask_token_id": None})()
    with pytest.raises(ModelError, match="mask"):
        task.encode(rows("lamp"), tokenizer, max_length=64)


def test_gaps_of_training_are_new_each_time_and_follow_the_generator(tokenizer: Any) -> None:
    examples = task.encode(rows(*TEXTS), tokenizer, max_length=64).examples
    torch.manual_seed(3)
    first, second = task.collate(examples, 0), task.collate(examples, 0)
    torch.manual_seed(3)
    again = task.collate(examples, 0)
    assert all((first[name] == again[name]).all() for name in first)
    assert (first["labels"] != second["labels"]).any()


def test_gaps_of_training_are_made_as_bert_s_were(tokenizer: Any) -> None:
    examples = task.encode(rows(" ".join(TEXTS)), tokenizer, max_length=64).examples * 60
    torch.manual_seed(0)
    batch = task.collate(examples, 0)
    whole = np.zeros_like(batch["input_ids"])
    for line, example in zip(whole, examples, strict=True):
        line[: len(example["input_ids"])] = example["input_ids"]
    gaps = batch["labels"] != -100
    assert (batch["labels"][gaps] == whole[gaps]).all()
    assert (batch["input_ids"][~gaps] == whole[~gaps]).all()
    free = sum(len(example["free"]) for example in examples)
    assert gaps.sum() / free == pytest.approx(0.15, abs=0.01)
    share = float((batch["input_ids"][gaps] == tokenizer.mask_token_id).mean()), float((batch["input_ids"][gaps] == whole[gaps]).mean())
    assert share == pytest.approx((0.8, 0.1), abs=0.03)


def test_perplexity_by_hand(tokenizer: Any) -> None:
    """A model that knows nothing is as sure as there are entries; one that knows everything is at 1."""
    examples = task.encode(rows(*TEXTS, " ".join(TEXTS)), tokenizer, max_length=32).examples
    scores = task.score(uniform, examples, 0)
    assert len(scores.value) == len(TEXTS) + 1, "a score a row"
    assert task.metrics(scores)["perplexity"] == pytest.approx(300)
    assert task.metrics(scores)["loss"] == pytest.approx(np.log(300))
    some = scores.take(np.array([3, len(TEXTS)]))
    assert task.metrics(some)["perplexity"] == pytest.approx(300)


def test_loss_and_score_are_those_of_transformers(tokenizer: Any) -> None:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **tiny.SIZES)).eval()
    examples = task.encode(rows(*TEXTS[:5]), tokenizer, max_length=64).examples
    batch = {name: torch.from_numpy(array) for name, array in task.collate(examples, 0).items()}
    with torch.no_grad():
        said = model(**batch)
        assert float(task.loss(said, batch)) == pytest.approx(float(said.loss), rel=1e-5)

        def forward(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"logits": model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits.numpy()}

        scores = task.score(forward, examples, 0, size=2)
        for example, value in zip(examples, scores.value, strict=True):
            ids = torch.tensor([example["input_ids"]])
            labels = torch.full_like(ids, -100)
            labels[0, example["masked"]] = ids[0, example["masked"]]
            ids[0, example["masked"]] = tokenizer.mask_token_id
            assert value == pytest.approx(float(model(input_ids=ids, labels=labels).loss) * len(example["masked"]), rel=1e-4)
