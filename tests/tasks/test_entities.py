"""Tags of words: which sub-word says them, and entities counted as seqeval counts them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgetune.data.tags import listed
from edgetune.errors import DataError
from edgetune.tasks import Scores, entities
from edgetune.tasks import token_classification as task

LABELS = listed(("artist", "creative-work"))
TAGS = st.lists(st.sampled_from(LABELS), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.tokenizer(tmp_path_factory.mktemp("words"))


def row(text: str, *tagged: tuple[str, str]) -> dict[str, Any]:
    """A row as `data` makes it, from its words and their tags."""
    words, at = [], 0
    for word, _ in tagged:
        at = text.index(word, at)
        words.append([at, at + len(word)])
        at += len(word)
    return {"text": text, "words": words, "tags": [tag for _, tag in tagged]}


def test_the_app_has_the_same_words() -> None:
    """answers/ ships without edgetune, so it has a copy."""
    from edgetune.runtime.answers import entities as of_the_app

    assert of_the_app.WORD == entities.WORD


def encoded(tokenizer: Any, *rows: dict[str, Any], longest: int = 64) -> Any:
    return task.encode(rows, tokenizer, max_length=longest, labels=LABELS)


def taught(tokenizer: Any, example: dict[str, Any]) -> list[tuple[str, str]]:
    """(sub-word, tag that it is taught or "-")."""
    names = [LABELS[i] if i >= 0 else "-" for i in example["labels"]]
    return list(zip(tokenizer.convert_ids_to_tokens(example["input_ids"]), names, strict=True))


def test_the_first_sub_word_decides_and_the_others_are_not_learned(tokenizer: Any) -> None:
    [example] = encoded(tokenizer, row("play the abc", ("play", "O"), ("the", "O"), ("abc", "B-artist"))).examples
    assert taught(tokenizer, example) == [
        *(("[CLS]", "-"), ("play", "O"), ("t", "O"), ("##h", "-"), ("##e", "-")),
        *(("a", "B-artist"), ("##b", "-"), ("##c", "-"), ("[SEP]", "-")),
    ]
    assert [LABELS[i] for i in example["tags"]] == ["O", "O", "B-artist"]
    assert example["words"] == [1, 2, 5]
    assert example["input_ids"] == tokenizer("play the abc")["input_ids"]


def test_words_that_an_app_sees_inside_of_a_word_are_taught_too(tokenizer: Any) -> None:
    """An app gets "@song42" without its words, and reads "@" and "song42"."""
    [example] = encoded(tokenizer, row("7b7 @song-x9", ("7b7", "O"), ("@song-x9", "B-artist"))).examples
    assert [pair for pair in taught(tokenizer, example) if pair[1] != "-"] == [
        *(("7", "O"), ("[UNK]", "B-artist"), ("song", "I-artist"), ("[UNK]", "I-artist"), ("x", "I-artist")),
    ]
    assert example["words"] == [1, 4]


def test_a_word_without_a_token_is_outside(tokenizer: Any) -> None:
    gone = row("lamp \u200b song", ("lamp", "O"), ("\u200b", "B-artist"), ("song", "I-artist"))
    [example] = encoded(tokenizer, gone).examples
    assert example["words"] == [1, -1, 2]
    assert encoded(tokenizer, gone).lost == 1
    logits = np.full((len(example["input_ids"]), len(LABELS)), -9.0, dtype=np.float32)
    logits[:, LABELS.index("I-artist")] = 9.0
    scores = task.score(lambda given: {"logits": logits[None]}, [example], 0)
    assert scores.logits.argmax(-1).tolist() == [LABELS.index(tag) for tag in ("I-artist", "O", "I-artist")]
    assert scores.extra.tolist() == [[0, 2, 1]]
    only = encoded(tokenizer, row("\u200b", ("\u200b", "O")), gone)
    assert only.left_out == [(0, "no word of it is left as a token")]
    assert len(only.examples) == 1


def test_words_that_were_cut_count_as_missed(tokenizer: Any) -> None:
    words = [("lamp", "O")] * 6 + [("song", "B-artist")] * 3
    found = encoded(tokenizer, row(" ".join(word for word, _ in words), *words), longest=9)
    [example] = found.examples
    assert (found.cut, found.lost) == (1, 2)
    assert example["words"] == [1, 2, 3, 4, 5, 6, 7, -1, -1]
    assert example["labels"][-1] == -100, "the end mark"

    def knows(given: Any) -> dict[str, np.ndarray]:
        wanted = np.array(example["labels"]).clip(0)
        return {"logits": 9 * np.eye(len(LABELS), dtype=np.float32)[wanted][None]}

    scores = task.score(knows, [example], 0)
    assert scores.extra.tolist() == [[1, 1, 3]]
    assert task.metrics(scores, LABELS)["recall"] == pytest.approx(1 / 3)


def test_a_sub_word_that_two_words_share_is_taught_the_first(tokenizer: Any) -> None:
    assert entities.first_tokens([(0, 0), (0, 2), (2, 5), (6, 9), (0, 0)], [[0, 1], [1, 2], [2, 5], [5, 6], [6, 8], [9, 10]]) == [
        *(1, 1, 2, -1, 3, -1)
    ]


def test_tags_that_the_model_does_not_know(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="tags that the model does not know: B-town"):
        encoded(tokenizer, row("lamp", ("lamp", "B-town")))


@given(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6))
def test_f1_is_that_of_seqeval(rows: list[tuple[list[str], list[str]]]) -> None:
    from seqeval.metrics import f1_score, precision_score, recall_score

    pairs = [(told[: len(right)], right[: len(told)]) for told, right in rows]
    scores = said(pairs)
    told, right = ([list(row) for row in side] for side in zip(*pairs, strict=True))
    found = task.metrics(scores, LABELS)
    for name, truth in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
        assert found[name] == pytest.approx(truth(right, told, zero_division=0)), name
    assert found["f1"] == pytest.approx(scores.value.sum() / max(1.0, scores.weight.sum())), "what the gate resamples"
    assert found["accuracy"] == np.mean([a == b for one, two in pairs for a, b in zip(one, two, strict=True)])


def said(pairs: list[tuple[list[str], list[str]]]) -> Scores:
    """The scores of a model that tells the first of each pair where the second is right."""
    examples = [
        {
            "input_ids": [99] * (i + 1) + list(range(len(right))),
            "labels": [-100] * (i + 1 + len(right)),
            "words": [i + 1 + k for k in range(len(right))],
            "tags": [LABELS.index(tag) for tag in right],
            "names": LABELS,
        }
        for i, (_, right) in enumerate(pairs)
    ]

    def forward(given: Any) -> dict[str, np.ndarray]:
        out = np.zeros((*given["input_ids"].shape, len(LABELS)), dtype=np.float32)
        for line, ids, mask in zip(out, given["input_ids"], given["attention_mask"], strict=True):
            ahead = int((ids[: mask.sum()] == 99).sum())
            for place, tag in enumerate(pairs[ahead - 1][0]):
                line[ahead + place, LABELS.index(tag)] = 5.0
        return {"logits": out}

    return task.score(forward, examples, 0, size=2)


def test_report_by_type() -> None:
    pairs = [
        (["B-artist", "I-artist", "O", "B-artist"], ["B-artist", "I-artist", "O", "B-creative-work"]),
        (["O", "B-creative-work", "O"], ["B-artist", "I-artist", "O"]),
    ]
    artist, work = task.report(said(pairs), LABELS)
    assert artist == {"label": "artist", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2, "taken_for": None}
    assert work == {"label": "creative-work", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1, "taken_for": "artist"}


def test_rows_are_taken_with_their_words() -> None:
    pairs = [(["O"], ["B-artist"]), (["B-artist", "O"], ["B-artist", "O"]), (["O", "O", "O"], ["O", "B-artist", "O"])]
    part = said(pairs).take(np.array([1, 2]))
    assert part.lines.tolist() == [2, 3]
    assert task.metrics(part, LABELS)["f1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_mean_over_what_is_learned(smoothing: float) -> None:
    logits = torch.randn((2, 3, len(LABELS)), generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[-100, 1, 0], [-100, -100, 3]])
    log_p = logits.double().log_softmax(-1)
    each = [-(1 - smoothing) * log_p[b, s, labels[b, s]] - smoothing * log_p[b, s].mean() for b, s in ((0, 1), (0, 2), (1, 2))]
    found = task.loss({"logits": logits}, {"labels": labels}, smoothing)
    assert float(found) == pytest.approx(float(sum(each) / 3), abs=1e-6)


def test_words_without_blanks_between() -> None:
    assert entities.WORD.findall("我住在北京 Ärger_2 don't カナ") == ["我", "住", "在", "北", "京", "Ärger_2", "don", "'", "t", "カ", "ナ"]


def test_a_word_is_the_same_where_it_is_answered() -> None:
    from edgetune.runtime.answers.entities import WORD

    assert WORD.pattern == entities.WORD.pattern


def test_the_pieces_of_a_word_outside_are_not_taught(tokenizer: Any) -> None:
    """A link of many pieces would teach "outside" once a piece."""
    [example] = encoded(tokenizer, row("play lamp/song/lamp", ("play", "B-artist"), ("lamp/song/lamp", "O"))).examples
    assert [pair for pair in taught(tokenizer, example) if pair[1] != "-"] == [("play", "B-artist"), ("lamp", "O")]
