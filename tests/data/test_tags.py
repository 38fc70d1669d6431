"""Tags in every scheme become BIO2, spans become tags and back, and what breaks is a row with its reason."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetune.data import conll, spans, tags
from edgetune.data.read import read

quick = settings(max_examples=200, deadline=None)
TYPES = ("PER", "LOC", "creative-work")


@st.composite
def sentences(draw: Any) -> list[str]:
    """BIO2 tags of a sentence, made from pieces: (type or none, words)."""
    pieces = draw(st.lists(st.tuples(st.sampled_from([None, *TYPES]), st.integers(1, 4)), min_size=1, max_size=6))
    return [tag for kind, n in pieces for tag in ([f"B-{kind}", *[f"I-{kind}"] * (n - 1)] if kind else ["O"] * n)]


def as_iob1(bio2: list[str]) -> list[str]:
    """As CoNLL-2003 writes it: B- only right after an entity of the same type."""
    return [f"I-{tag[2:]}" if tag[0] == "B" and before[2:] != tag[2:] else tag for before, tag in pairwise(["O", *bio2])]


def as_bioes(bio2: list[str], names: str = "BIES") -> list[str]:
    begin, inside, end, single = names
    out = []
    for tag, after in pairwise([*bio2, "O"]):
        last = not after.startswith("I")
        letter = tag[0] if tag == "O" else ((single if last else begin) if tag[0] == "B" else (end if last else inside))
        out.append(letter + tag[1:])
    return out


def converted(rows: list[list[str]]) -> list[list[str]]:
    convert = tags.SCHEMES[tags.detect(rows)]
    found = [convert(row) for row in rows]
    assert not any(problem for _, problem in found), found
    return [row for row, _ in found]


@quick
@given(rows=st.lists(sentences(), min_size=1, max_size=5))
def test_every_scheme_becomes_bio2(rows: list[list[str]]) -> None:
    assert tags.detect(rows) == "BIO2"
    assert converted(rows) == rows
    assert converted([as_iob1(row) for row in rows]) == rows
    for names in ("BIES", "BILU", "BMES", "BIEW"):
        written = [as_bioes(row, names) for row in rows]
        if any(tag[0] in "ESLUW" for row in written for tag in row):
            assert tags.detect(written) == "BIOES"
        assert converted(written) == rows


@quick
@given(rows=st.lists(sentences(), min_size=1, max_size=5))
def test_types_alone_and_i_alone(rows: list[list[str]]) -> None:
    joined = [tags.spell(len(row), merged(row)) for row in rows]  # entities of one type that touch cannot be told apart
    for write in (lambda tag: tag if tag == "O" else f"I-{tag[2:]}", lambda tag: tag if tag == "O" else tag[2:]):
        written = [[write(tag) for tag in row] for row in rows]
        if any("O" in row for row in rows) or write("B-x") == "I-x":
            assert converted(written) == joined


def merged(row: list[str]) -> list[tuple[int, int, str]]:
    out: list[tuple[int, int, str]] = []
    for start, end, kind in tags.entities(row):
        if out and out[-1][1] == start and out[-1][2] == kind:
            start = out.pop()[0]
        out.append((start, end, kind))
    return out


def test_one_tag_a_word() -> None:
    assert tags.detect([["DT", "NN", "NN"]]) == "one tag a word"
    assert converted([["DT", "NN", "NN"]]) == [["B-DT", "B-NN", "B-NN"]]


@pytest.mark.parametrize(
    ("scheme", "row", "problem"),
    [
        ("BIO2", ["B-PER", "O", "I-PER"], 'tag 3 is "I-PER", which continues nothing'),
        ("BIO2", ["B-PER", "I-LOC"], 'tag 2 is "I-LOC", which continues nothing'),
        ("BIO2", ["B-PER", "PER"], 'tag 2 is "PER", neither O nor B- nor I-'),
        ("BIOES", ["B-PER", "O", "S-PER"], 'tag 2 is "O", but the entity before it has no end'),
        ("BIOES", ["O", "E-PER"], 'tag 2 is "E-PER", which continues nothing'),
        ("BIOES", ["S-PER", "B-PER"], "the last entity has no end"),
    ],
)
def test_tags_that_break_their_scheme(scheme: str, row: list[str], problem: str) -> None:
    assert tags.detect([["B-PER", "I-PER", "O", "B-LOC"] if scheme == "BIO2" else ["S-LOC"], row]) == scheme
    assert tags.SCHEMES[scheme](row) == ([], problem)


@quick
@given(row=sentences())
def test_entities_and_tags_are_the_same_thing(row: list[str]) -> None:
    assert tags.spell(len(row), tags.entities(row)) == row


texts = st.lists(
    st.sampled_from(["Zürich", "a", "7am", "Ünïcode", "don't", "...", "\u200b", "🙂", "東京", "A.I.", "\u00a0"]), min_size=1, max_size=9
)


@quick
@given(words=texts, chosen=st.data())
def test_spans_become_tags_and_back(words: list[str], chosen: Any) -> None:
    text = " ".join(words)
    places = spans.words(text)
    assert all(text[start:end].strip() == text[start:end] for start, end in places)
    bio2 = chosen.draw(sentences())[: len(places)]
    bio2 += ["O"] * (len(places) - len(bio2))
    found = spans.spans(places, bio2)
    assert spans.tagged(text, found) == (places, bio2, 0, "", "")
    for start, end, _ in found:
        assert text[start:end].strip()


@pytest.mark.parametrize(
    ("text", "given", "reason"),
    [
        ("go to Paris", [(6, 12, "x")], "a span outside of its text"),
        ("go to Paris", [(-1, 2, "x")], "a span outside of its text"),
        ("go to Paris", [(6, 6, "x")], "an empty span"),
        ("go to Paris", [(2, 3, "x")], "an empty span"),
        ("go to Paris", [(7, 11, "x")], "a span that cuts a word"),
        ("go to Paris", [(0, 5, "x"), (3, 11, "y")], "spans that overlap"),
        ("go to Paris", [(6, 11, "x"), (6, 11, "y")], "spans that overlap"),
    ],
)
def test_spans_that_cannot_be_tags(text: str, given: list[tuple[int, int, str]], reason: str) -> None:
    assert spans.tagged(text, given)[3] == reason


def test_blanks_at_the_ends_of_a_span_are_cut_off() -> None:
    assert spans.tagged("go to Paris now", [(5, 12, "x")]) == ([[0, 2], [3, 5], [6, 11], [12, 15]], ["O", "O", "B-x", "O"], 1, "", "")


@pytest.mark.parametrize(
    "value",
    [
        [{"start": 6, "end": 11, "label": "city"}],
        [{"start_offset": 6, "end_offset": 11, "type": "city"}],
        [[6, 11, "city"]],
        [(6, 11.0, " city ")],
    ],
)
def test_forms_of_spans(value: Any) -> None:
    assert spans.read(value) == ([(6, 11, "city")], "")


# -- CoNLL


cells = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=6).filter(lambda t: t[0] not in "#-")


@quick
@given(
    rows=st.lists(st.lists(cells, min_size=1, max_size=5), min_size=1, max_size=5),
    seed=st.data(),
    tab=st.booleans(),
    extra=st.integers(0, 2),
)
def test_a_conll_file_is_read_as_it_was_written(rows: list[list[str]], seed: Any, tab: bool, extra: int) -> None:
    separator = "\t" if tab else " "
    tagged = [[(word, seed.draw(st.sampled_from(["O", "B-x", "B-y"]))) for word in row] for row in rows]
    ends = seed.draw(st.sampled_from(["\n", "\r\n"]))
    blank = seed.draw(st.sampled_from(["", "\t", " "]))
    lines: list[str] = []
    first: list[int] = []
    for row in tagged:
        first.append(len(lines) + 1)
        lines += [separator.join([word, *["x"] * extra, tag]) for word, tag in row]
        lines += [blank] * seed.draw(st.integers(1, 2))
    text = ends.join(lines)
    assert conll.looks_like(text)
    found, bad, columns = conll.read("f.conll", text)
    assert not bad
    assert columns == 2 + extra
    assert [number for number, _ in found] == first
    assert [list(zip(row["tokens"], row["tags"], strict=True)) for _, row in found] == tagged


def test_documents_comments_and_wrong_lines(tmp_path: Path) -> None:
    path = tmp_path / "dev.conll"
    path.write_text(
        "-DOCSTART- -X- O O\n\n# id 1\nEU NNP I-NP I-ORG\n# NN O O\n\nlost NN\n\n-DOCSTART- -X- O O\n\nBrussels NNP I-NP I-LOC\n", "utf-8"
    )
    table = read(path)
    assert [row["tokens"] for _, row in table.rows] == [["EU", "#"], ["Brussels"]]
    assert [row["group"] for _, row in table.rows] == ["dev.conll, document 1", "dev.conll, document 2"]
    assert [number for number, _ in table.rows] == [4, 11]
    assert [(one.row, one.reason, one.detail) for one in table.bad] == [(7, "the wrong number of columns", "line 7 has 2 of 4")]


@pytest.mark.parametrize("name", ["train.txt", "train.tsv", "emerging.test.annotated"])
def test_conll_under_another_name_is_read_and_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("EU\tB-ORG\nrejects\tO\n\nPeter\tB-PER\n", "utf-8")
    assert [row for _, row in read(path).rows] == [
        {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
        {"tokens": ["Peter"], "tags": ["B-PER"]},
    ]


def test_pieces_of_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "train.json"
    pieces = [{"text": "play "}, {"text": "Zürich", "entity": "album"}, {"text": " now"}]
    path.write_text(json.dumps({"PlayMusic": [{"data": pieces}, {"data": pieces[:1]}]}), "utf-8")
    assert [row for _, row in read(path).rows] == [
        {"text": "play Zürich now", "spans": [{"start": 5, "end": 11, "label": "album"}], "intent": "PlayMusic"},
        {"text": "play ", "spans": [], "intent": "PlayMusic"},
    ]
    path.write_text("".join(json.dumps({"intent": "stop", "data": part}) + "\n" for part in (pieces, pieces[:1])), "utf-8")
    assert [row["text"] for _, row in read(path.rename(tmp_path / "train.jsonl")).rows] == ["play Zürich now", "play "]
