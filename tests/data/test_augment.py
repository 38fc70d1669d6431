"""Rows made of rows: what changes, what must not, and that no text of another split is among them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune import tasks
from edgetune.data import augment, edits, relation, speech, tags, thesaurus
from edgetune.data.columns import key
from edgetune.errors import DataError, RecipeError
from edgetune.recipe import Recipe, load

ROWS = [{"text": text, "label": label, "row": i, "file": "data.csv"} for i, (text, label) in enumerate(tiny.sentences(40))]
ALTERING = [name for name, one in augment.AUGMENTATIONS.items() if one.alter]
SYNONYMS = {"kitchen": ["galley", "cooking area"], "songs": ["tunes"], "two": ["a pair of"], "line": ["queue"]}
WORD = st.sampled_from(["kitchen", "to", "The", ",", "don't", "into", "two", "on", "line", "3", "Zürich", "灯", "songs", "?!"])


def recipe(kinds: str, task: str = "text-classification", **keys: Any) -> Recipe:
    return load(None, {"task": task, "augment.kinds": kinds, **{f"augment.{name}": value for name, value in keys.items()}})


@st.composite
def tagged(draw: st.DrawFn) -> dict[str, Any]:
    """A text of tagged words, blanks between most of them."""
    words = draw(st.lists(WORD, min_size=1, max_size=9))
    text = "".join(word + draw(st.sampled_from([" ", " ", "  ", ""])) for word in words)
    _, places, problem = tags.place(words, text)
    assert not problem
    own: list[str] = []
    for _ in words:
        role = draw(st.sampled_from("OOBI"))
        kind = draw(st.sampled_from(["city", "thing"]))
        own.append("O" if role == "O" else f"I-{own[-1][2:]}" if role == "I" and own and own[-1] != "O" else f"B-{kind}")
    return {"text": text, "words": places, "tags": own, "row": 1, "file": "x"}


def surfaces(row: dict[str, Any]) -> list[tuple[str, str]]:
    """(type, text) of the entities, by the offsets of their words."""
    return [
        (kind, row["text"][row["words"][first][0] : row["words"][last - 1][1]]) for first, last, kind in edits.entity_spans(row["tags"])
    ]


@pytest.mark.parametrize("name", ALTERING)
@settings(max_examples=120)
@given(row=tagged(), other=tagged(), seed=st.integers(0, 5))
def test_spans_and_tags_stay_right(name: str, row: dict[str, Any], other: dict[str, Any], seed: int) -> None:
    task = tasks.get("token-classification")
    alter = augment.AUGMENTATIONS[name].alter
    assert alter is not None
    new = alter(row, random.Random(seed), task, augment.Words(edits.entities_of([row, other]), SYNONYMS))
    assert len(new["words"]) == len(new["tags"]) > 0
    ends = [0, *(place for word in new["words"] for place in word), len(new["text"])]
    assert ends == sorted(ends), "words overlap, or stand outside of the text"
    assert all(start < end and new["text"][start:end].strip() for start, end in new["words"])
    assert all(tag[0] != "I" or before[1:] in (f"-{tag[2:]}",) for before, tag in zip(["O", *new["tags"]], new["tags"], strict=False))
    before, after = surfaces(row), surfaces(new)
    assert [kind for kind, _ in after] == [kind for kind, _ in before], "an entity was lost, or another type made of it"
    if name in ("word-dropout", "synonyms"):
        assert after == before, "a word of an entity was left out or exchanged"
    if name == "entity-swap":
        assert set(after) <= {*before, *surfaces(other)}
        outside = [[r["text"][a:b] for (a, b), tag in zip(r["words"], r["tags"], strict=True) if tag == "O"] for r in (row, new)]
        assert outside[0] == outside[1]
    words = [[r["text"][a:b] for a, b in r["words"]] for r in (row, new)]
    assert name != "typos" or len(words[0]) == len(words[1])
    assert {**new, "text": "", "words": [], "tags": []} == {**row, "text": "", "words": [], "tags": []}


def test_copies_are_marked_new_and_answer_as_their_row_does() -> None:
    made, facts = augment.copies(ROWS, [], recipe("typos,speech,word-dropout", copies=2))
    assert facts["rows"].keys() == {"typos", "speech", "word-dropout"} and sum(facts["rows"].values()) == len(made) > 4 * len(ROWS)
    assert all(facts["rows"].get(name, 0) + facts["not_made"].get(name, 0) == 2 * len(ROWS) for name in facts["rows"])
    texts = [key(row) for row in [*ROWS, *made]]
    assert len(set(texts)) == len(texts)
    labels = {row["row"]: row["label"] for row in ROWS}
    assert all(row["label"] == labels[row["row"]] for row in made)
    assert {row["augmented"] for row in made} == facts["rows"].keys()
    assert made == augment.copies(ROWS, [], recipe("typos,speech,word-dropout", copies=2))[0]


def test_no_text_of_another_split_is_made() -> None:
    pair = [{"text": "lamp on", "label": "lights", "row": 1, "file": "x"}]
    free, _ = augment.copies(pair, [], recipe("word-dropout", copies=2))
    assert {row["text"] for row in free} == {"lamp", "on"}
    made, facts = augment.copies(pair, [{"text": "LAMP"}], recipe("word-dropout", copies=2))
    assert [row["text"] for row in made] == ["on"]
    assert facts["in_other_splits"] > 0 and facts["not_made"] == {"word-dropout": 1}


def test_each_kind_does_what_it_says() -> None:
    row = {"text": "I can pay into two accounts, the songs on my phone!", "label": "x", "row": 1, "file": "x"}
    for seed in range(20):
        made, _ = augment.copies([row], [], recipe("speech", copies=1).model_copy(update={"seed": seed}))
        [heard] = [one["text"] for one in made]
        assert heard == heard.lower() and not set(heard) & set(",!")
    dropped = augment.copies([row], [], recipe("word-dropout"))[0][0]["text"].split()
    left = iter(row["text"].split())
    assert len(dropped) == len(row["text"].split()) - 1 and all(word in left for word in dropped), "words in their order, one less"


def test_homophones_compounds_and_numbers() -> None:
    def heard(text: str, seed: int) -> str:
        words = text.split()
        edits = {first: (last, new) for first, last, new in speech.heard(words, [False] * len(words), random.Random(seed))}
        out, i = [], 0
        while i < len(words):
            last, new = edits.get(i, (i + 1, words[i]))
            out.append(new)
            i = last
        return " ".join(out)

    assert {heard("Flower.", seed) for seed in range(5)} == {"flour"}
    assert {heard("log in", seed) for seed in range(30)} >= {"login"}
    assert {heard("password", seed) for seed in range(5)} == {"pass word"}
    assert heard("8 kitchens", 0) in ("eight kitchen", "ate kitchens")
    assert heard("²", 0) == "²"
    assert all(word == word.lower() for word in speech.SOUNDS) and all(word not in others for word, others in speech.SOUNDS.items())


def test_marked_entities_and_their_words_stay() -> None:
    task = tasks.get("relation-extraction")
    row = {"text": "The <e1>Heart Attack</e1> came to the <e2>songs</e2>, two of them", "label": "x"}
    for name in ("typos", "speech", "word-dropout", "synonyms"):
        alter = augment.AUGMENTATIONS[name].alter
        assert alter is not None
        for seed in range(30):
            new = alter(row, random.Random(seed), task, augment.Words({}, SYNONYMS))["text"]
            assert relation.read(new)[1] == "", new
            assert name == "typos" or re.findall("<e.>.*?</e.>", new) == ["<e1>Heart Attack</e1>", "<e2>songs</e2>"]


@pytest.mark.parametrize("text", ["打开厨房的灯", "on", "?!", "42"])
def test_any_text_keeps_something(text: str) -> None:
    for name in ("typos", "speech", "word-dropout"):
        [new] = augment.noisy([{"text": text, "label": "x"}], name, recipe(name))
        assert new["text"].strip()
    assert len(augment.noisy([{"text": "打开厨房的灯"}], "word-dropout", recipe("word-dropout"))[0]["text"]) == 5


def test_noisy_rows_are_the_same_for_every_run() -> None:
    noisy = augment.noisy(ROWS, "typos", recipe("typos"))
    assert noisy == augment.noisy(ROWS, "typos", recipe("typos", copies=3)) and len(noisy) == len(ROWS)
    assert sum(new["text"] != row["text"] for new, row in zip(noisy, ROWS, strict=True)) >= len(ROWS) - 2
    assert augment.noisy_by(recipe("word-dropout")) == "typos" and augment.noisy_by(load(None, {})) == ""
    assert augment.noisy_by(load(None, {"augment.noisy_test": "speech"})) == "speech"


@pytest.mark.parametrize(
    ("task", "keys", "what"),
    [
        ("text-classification", {"kinds": "typo"}, 'unknown augmentation "typo"'),
        ("fill-mask", {"kinds": "typos"}, "typos does not fit fill-mask"),
        ("text2text-generation", {"kinds": "word-dropout"}, "word-dropout does not fit"),
        ("text-classification", {"kinds": "entity-swap"}, "entity-swap does not fit"),
        ("token-classification", {"kinds": "mixup"}, "mixup does not fit"),
        ("text-classification", {"noisy_test": "mixup"}, "alters no text"),
        ("text-classification", {"copies": 2}, "augment.copies is given"),
        ("text-classification", {"kinds": "mixup", "copies": 2}, "augment.copies is given"),
        ("text-classification", {"kinds": "typos", "mixup_alpha": 1}, "augment.mixup_alpha is given"),
        ("text-classification", {"kinds": "typos", "unlabelled": "x.txt"}, "augment.unlabelled is given"),
        ("text-classification", {"kinds": "synonyms"}, "synonyms need a thesaurus"),
        ("text-classification", {"kinds": "typos", "thesaurus": "x.csv"}, "augment.thesaurus is given"),
        ("text-classification", {"kinds": "self-training"}, "needs texts without labels"),
        ("text-classification", {"kinds": "self-training", "unlabelled": "nowhere.txt"}, "there is nothing at nowhere.txt"),
    ],
)
def test_what_cannot_be_augmented_is_refused(task: str, keys: dict[str, Any], what: str) -> None:
    asked = load(None, {"task": task, **{f"augment.{name}": value for name, value in keys.items()}})
    with pytest.raises(RecipeError, match=re.escape(what)) as refused:
        augment.check(asked)
    assert refused.value.mend


def test_synonyms_stand_where_a_word_stood(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text(
        "Synonym,word\nflat,apartment\nflat,apartment\nplace to live,apartment\nLAMP,Lamp\nbulb,lamp\n", "utf-8"
    )
    asked = recipe("synonyms", thesaurus=str(tmp_path / "own.csv"), copies=3)
    assert thesaurus.read(asked) == {"apartment": ["flat", "place to live"], "lamp": ["bulb"]}
    row = {"text": 'Is "Apartment", the third, free?', "label": "x", "row": 1, "file": "a"}
    made, facts = augment.copies([row], [], asked)
    assert {one["text"] for one in made} == {'Is "Flat", the third, free?', 'Is "Place to live", the third, free?'}
    assert facts["rows"] == {"synonyms": 2} and facts["not_made"] == {"synonyms": 1}
    assert augment.copies([{**row, "text": "no word of it"}], [], asked)[0] == []
    [noisy] = augment.noisy([{"text": "the lamp"}], "synonyms", asked)
    assert noisy["text"] == "the bulb"


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ("word,meaning\na,b\n", "no column synonym"),
        ("word,synonym\na,b\nc,\n", "row 3: no synonym"),
        ("word,synonym\n,b\n", "row 2: no word"),
        ("word,synonym\nswitch on,start\n", "is several words"),
    ],
)
def test_a_thesaurus_that_is_none_is_refused(tmp_path: Path, table: str, what: str) -> None:
    (tmp_path / "own.csv").write_text(table, "utf-8")
    with pytest.raises(DataError, match=re.escape(what)) as refused:
        augment.check(recipe("synonyms", thesaurus=str(tmp_path / "own.csv")))
    assert refused.value.mend
    with pytest.raises(DataError, match="there is no file"):
        augment.check(recipe("synonyms", thesaurus=str(tmp_path / "none.csv")))


def test_the_recipe_names_every_augmentation() -> None:
    from edgetune.recipe import keys

    assert keys()["augment.kinds"].partition(": ")[2].split(", ") == list(augment.AUGMENTATIONS)
