"""Words of a text, and the score that they add to."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgetune.errors import RequestError
from edgetune.tasks import TASKS, attribution

SPANS = st.text(alphabet="ab 'é.,我猫の-\n🙂", max_size=20)


def test_words() -> None:
    def said(text: str) -> list[str]:
        return [word.word for word in attribution.words({"text": text})]

    assert said("I don't know, why?") == ["I", "don't", "know", ",", "why", "?"]
    assert said("我喜欢 state-of-the-art 3.5") == ["我", "喜", "欢", "state-of-the-art", "3", ".", "5"]


@given(SPANS, SPANS)
def test_words_are_where_they_say_and_all_there_is(first: str, second: str) -> None:
    item = {"text": first, "text_pair": second}
    if not (first + second).strip():
        with pytest.raises(RequestError, match="no word"):
            attribution.words(item)
        return
    found = attribution.words(item)
    for name, text in item.items():
        own = [word for word in found if word.field == name]
        assert all(text[word.start : word.end] == word.word for word in own)
        assert all(a.end <= b.start for a, b in pairwise(own))
        assert sum(len(word.word) for word in own) == len("".join(text.split())), "nothing but spaces is no word's"
    left = attribution.without(item, found[0])
    assert "".join((left["text"] + left["text_pair"]).split()) == "".join((first + second).split())[len(found[0].word) :]


def test_markers_stay_in_the_text() -> None:
    item = {"text": "the <e1>lid</e1> of a <e2>jar</e2>"}
    words = attribution.words(item, TASKS["relation-extraction"].markers)
    assert [word.word for word in words] == ["the", "lid", "of", "a", "jar"]
    assert attribution.without(item, words[1])["text"] == "the <e1></e1> of a <e2>jar</e2>"


def test_a_word_goes_with_one_space() -> None:
    item = {"text": "turn on, it"}
    texts = [attribution.without(item, word)["text"] for word in attribution.words(item)]
    assert texts == ["on, it", "turn , it", "turn on it", "turn on,"]


def test_the_score_is_the_log_odds() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 5)) * 4
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(attribution.score(logits, 2, "classes"), np.log(chances[:, 2] / (1 - chances[:, 2])))
    np.testing.assert_allclose(attribution.score(torch.tensor(logits), 2, "classes"), attribution.score(logits, 2, "classes"))
    assert (attribution.score(logits, 2, "labels") == logits[:, 2]).all(), "a yes or no of its own"


def test_labels() -> None:
    assert attribution.names("intent-and-slots", ["intent:play", "intent:stop", "O", "B-song"]) == ["play", "stop"]
    assert attribution.names("text-regression", []) == []
    assert attribution.place("stop", ["play", "stop"]) == 1 and attribution.place(None, []) is None
    with pytest.raises(RequestError, match='did you mean "play"'):
        attribution.place("plai", ["play", "stop"])
    with pytest.raises(RequestError, match="has no labels"):
        attribution.place("play", [])


def test_tasks_that_are_explained_have_one_answer_a_text() -> None:
    assert set(attribution.EXPLAINED) < set(TASKS)
    assert all(TASKS[name].outputs["logits"] == ("batch_size",) for name in attribution.EXPLAINED)
    with pytest.raises(RequestError) as refused:
        attribution.kind("token-classification")
    assert "text-classification" in refused.value.details[0]
