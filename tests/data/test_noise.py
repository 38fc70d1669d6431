"""Typing errors, unseen words, and text made from text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.data import noise, relation, tags

TEXTS = [text for text, _ in tiny.sentences(120)]
ROWS = [{"text": text, "label": label, "row": i} for i, (text, label) in enumerate(tiny.sentences(120))]


def distance(a: str, b: str) -> int:
    """Edits between two strings, a swap of neighbours being one (restricted Damerau-Levenshtein)."""
    table = {(i, -1): i + 1 for i in range(-1, len(a))} | {(-1, j): j + 1 for j in range(-1, len(b))}
    for i in range(len(a)):
        for j in range(len(b)):
            cost = a[i] != b[j]
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + cost)
            if i and j and a[i] == b[j - 1] and a[i - 1] == b[j]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(a) - 1, len(b) - 1]


def test_typos_are_one_or_two_in_every_row_and_nothing_else_changes() -> None:
    noisy = noise.typos(ROWS, 0)
    distances = [distance(row["text"], new["text"]) for row, new in zip(ROWS, noisy, strict=True)]
    assert set(distances) <= {0, 1, 2}  # the second may undo the first
    assert sum(d == 0 for d in distances) <= 2 and {1, 2} <= set(distances)
    assert [{**new, "text": ""} for new in noisy] == [{**row, "text": ""} for row in ROWS]


def test_typos_depend_on_text_and_seed_alone() -> None:
    noisy = noise.typos(ROWS, 0)
    assert noise.typos(ROWS[::-1], 0) == noisy[::-1]
    assert noise.typos(ROWS, 1) != noisy


def test_every_kind_of_slip_occurs() -> None:
    lengths = {len(new["text"]) - len(row["text"]) for row, new in zip(ROWS, noise.typos(ROWS, 0), strict=True)}
    assert {-1, 0, 1} <= lengths


@pytest.mark.parametrize("text", ["", "42", "a 1 b", "?!"])
def test_a_text_without_words_stays(text: str) -> None:
    assert noise.typos([{"text": text}], 0) == [{"text": text}]


def test_typos_reach_prompts_and_the_last_users_message() -> None:
    assert noise.typos([{"prompt": "kitchen", "completion": "kitchen"}], 0)[0]["prompt"] != "kitchen"
    talk = [{"role": role, "content": "kitchen lights"} for role in ("system", "user", "assistant", "user", "assistant")]
    new = noise.typos([{"messages": talk}], 0)[0]["messages"]
    assert [i for i in range(5) if new[i] != talk[i]] == [3]
    asked = {"question": "kitchen", "context": "kitchen", "answers": [[0, "kitchen"]]}
    assert {**noise.typos([asked], 0)[0], "question": "kitchen"} == asked != noise.typos([asked], 0)[0]


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.sampled_from(["kitchen", "lights", "to", "!", "don't", "Zürich"]), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_words_keep_their_tags_and_get_their_new_places(words: list[str], seed: int) -> None:
    text, places, problem = tags.place(words, "  ".join(words) + " ")
    assert not problem
    row = {"text": text, "words": places, "tags": ["O"] * len(words)}
    new = noise.typos([row], seed)[0]
    assert len(new["words"]) == len(words) and new["tags"] == row["tags"]
    again = [new["text"][start:end] for start, end in new["words"]]
    assert "  ".join(again) + " " == new["text"]
    assert (
        sum(distance(a, b) for a, b in zip(words, again, strict=True)) <= 3
    )  # two slips, but a letter between two swapped ones counts three
    assert again != words or new["text"] == text


def test_marked_entities_stay_marked() -> None:
    row = {"text": "the <e1>audits</e1> were about <e2>waste</e2>", "label": "x"}
    assert all(relation.read(new["text"])[1] == "" for seed in range(50) for new in noise.typos([row], seed))


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40), seed=st.integers(0, 9))
def test_any_text_can_be_mistyped(text: str, seed: int) -> None:
    assert isinstance(noise.typos([{"text": text}], seed)[0]["text"], str)


class Letters:
    """A tokenizer whose pieces are the characters."""

    def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


def test_unseen_rows_have_a_new_word_or_a_new_piece() -> None:
    rows = [{"text": text} for text in ("Turn it ON", "turn the lamp on", "turn it on!", "it turn", "")]
    assert noise.unseen(rows, ["turn it on", "THE ON"], Letters()) == [rows[1], rows[2]]
    assert noise.unseen([], ["turn it on"], Letters()) == []
    assert noise.unseen(rows, [], Letters()) == rows[:4]


def singles(texts: Sequence[str], n: int, seed: int) -> list[str]:
    return [text for (text,) in noise.augment([(text,) for text in texts], n, seed)]


def test_augmented_texts_are_new_different_and_made_of_the_old_words_or_near_them() -> None:
    made = singles(TEXTS, 500, 0)
    assert len(made) == len(set(made)) == 500
    assert not set(made) & set(TEXTS)
    words = {word for text in TEXTS for word in text.split()}
    known = sum(word.lower().rstrip("?") in words for text in made for word in text.split())
    assert known / sum(len(text.split()) for text in made) > 0.85
    assert {len(text.split()) for text in made} >= {1, 2, 3, 4, 5, 6, 7, 8}


def test_augmenting_is_deterministic() -> None:
    assert singles(TEXTS, 50, 0) == singles(TEXTS, 50, 0)
    assert singles(TEXTS, 50, 1) != singles(TEXTS, 50, 0)


def test_a_small_set_gives_what_it_has() -> None:
    assert singles([], 5, 0) == []
    assert singles([""], 5, 0) == []
    assert 0 < len(singles(["on"], 5, 0)) <= 5
    assert singles(TEXTS, 0, 0) == []


def test_text_without_spaces_is_varied_too() -> None:
    made = singles(["打开厨房的灯", "把音乐关掉吧"], 20, 0)
    assert len(made) == 20 and all(set(text.rstrip("?")) <= set("打开厨房的灯把音乐关掉吧") for text in made)


def test_one_text_of_a_pair_is_changed() -> None:
    pairs = [(text, text[::-1]) for text in TEXTS]
    made = noise.augment(pairs, 300, 0)
    assert len(made) == len(set(made)) == 300
    own = [set(column) for column in zip(*pairs, strict=True)]
    changed = [[text not in column for text, column in zip(pair, own, strict=True)] for pair in made]
    assert all(sum(one) <= 1 for one in changed), "a whole text may be exchanged for another's"
    assert {one.index(True) for one in changed if any(one)} == {0, 1}


def test_marked_entities_stay_or_come_from_another_text() -> None:
    markers = ("<e1>", "</e1>", "<e2>", "</e2>")
    texts = [f"{text} <e1>the {i}st lamp</e1> and the <e2>door {i}</e2> of it" for i, text in enumerate(TEXTS)]
    made = [text for (text,) in noise.augment([(text,) for text in texts], 300, 0, markers)]
    assert len(set(made)) == 300
    entity = re.compile("<e1>the [0-9]+st lamp</e1>|<e2>door [0-9]+</e2>")
    entities = [entity.findall(text) for text in made]
    assert all(len(found) == 2 and sum(text.count(marker) for marker in markers) == 4 for text, found in zip(made, entities, strict=True))
    own = {(text.split("<e1>")[0], entity.findall(text)[0]) for text in texts}
    assert any((text.split("<e1>")[0], found[0]) not in own for text, found in zip(made, entities, strict=True)), "another text's"
    outside = {entity.sub("", text) for text in made}
    assert len(outside) > 200, "what stands around them is changed"


NEAR = {"lamp": ("light", "lantern"), "door": ("gate",), "open": ("unlock",)}


def test_near_words_take_the_place_of_some_within_markers_too_and_keep_a_capital() -> None:
    markers = ("<e1>", "</e1>", "<e2>", "</e2>")
    texts = [f"Open the <e1>lamp</e1> by a <e2>door</e2> number {i}" for i in range(50)]
    made = [text for (text,) in noise.augment([(text,) for text in texts], 400, 0, markers, NEAR)]
    assert all(text.count(marker) == 1 for text in made for marker in markers)
    between = {found for text in made for found in re.findall("<e1>(.*?)</e1>", text)}
    assert between == {"lamp", "light", "lantern"}
    assert any(text.startswith("Unlock the ") for text in made) and not any(text.startswith("unlock the ") for text in made)
    exchanged = re.compile(r"(Open|Unlock) the <e1>(lamp|light|lantern)</e1> by a <e2>(door|gate)</e2> number \d+")
    assert 0.2 < sum(bool(exchanged.fullmatch(text)) for text in made) / len(made) < 0.6, "these are else as they were"


def test_without_near_words_the_copies_are_those_of_before() -> None:
    assert noise.augment([(text,) for text in TEXTS], 50, 0, near={}) == noise.augment([(text,) for text in TEXTS], 50, 0)
