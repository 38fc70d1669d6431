"""What a column holds: read as its name says, for every task; what is wrong is a row with its reason."""

from __future__ import annotations

import gzip
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from edgetune import data, tasks
from edgetune.data import kinds, relation, squad
from edgetune.data.columns import answer, key, question
from edgetune.errors import DataError
from edgetune.recipe import load

from .conftest import task

Folder = Callable[..., Path]
quick = settings(max_examples=200, deadline=None)


PROBES = (
    task("probe-tokens", {"text": ("text", "sentence"), "tags": ("tags", "ner_tags")}),
    task("probe-slots", {"text": ("text",), "tags": ("tags",), "intent": ("intent",)}),
    task("probe-pairs", {"text": ("text", "premise"), "text_pair": ("text_pair", "hypothesis"), "label": ("label",)}, ("text_pair",)),
    task("probe-score", {"text": ("text",), "text_pair": ("text_pair",), "score": ("score", "similarity")}),
    task("probe-labels", {"text": ("text",), "labels": ("labels", "tags")}),
    task("probe-answers", {"question": ("question",), "context": ("context",), "answers": ("answers", "answer")}),
    task("probe-parallel", {"source": ("source",), "target": ("target",)}),
    task("probe-plain", {"text": ("text",)}),
    task("relation-extraction", {"text": ("text", "sentence"), "label": ("label", "relation")}),
)


@pytest.fixture(autouse=True)
def probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of every kind of row; their modules list no labels of their own."""
    for probe in PROBES:
        monkeypatch.setitem(tasks.TASKS, probe.name, probe)
        monkeypatch.setitem(sys.modules, f"edgetune.tasks.{probe.name.replace('-', '_')}", types.ModuleType(probe.name))


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def places(found: Any) -> list[dict[str, Any]]:
    return sorted((row for part in found.splits.values() for row in part), key=lambda row: row["row"])


# -- one cell


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("labels", ["b", "a", "b "], ["a", "b"]),
        ("labels", "a|b c", ["a", "b c"]),
        ("labels", "a; b", ["a", "b"]),
        ("labels", '["a;b", "c"]', ["a;b", "c"]),
        ("labels", "", []),
        ("labels", [], []),
        ("labels", [1, True], ["1", "true"]),
        ("score", "4.25", 4.25),
        ("score", 3, 3.0),
        ("tokens", "EU rejects", ["EU", "rejects"]),
        ("tokens", "['EU', 'New York']", ["EU", "New York"]),
        ("tags", '["B-x", "O"]', ["B-x", "O"]),
        ("spans", '[{"start": 0, "end": 2, "label": "x"}]', [(0, 2, "x")]),
        ("answers", {"text": ["a"], "answer_start": [3]}, [(3, "a")]),
        ("answers", '{"text": ["a"], "answer_start": [3]}', [(3, "a")]),
        ("answers", [{"text": "a", "answer_start": 3}, {"text": "b"}], [(3, "a"), (None, "b")]),
        ("answers", {"text": [], "answer_start": []}, []),
        ("answers", [], []),
        ("answers", "Paris", [(None, "Paris")]),
        ("answers", "", []),
        ("intent", " play ", "play"),
    ],
)
def test_cells(column: str, value: Any, expected: Any) -> None:
    assert kinds.KINDS[column](value, None) == (expected, "")


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("labels", None, "no labels"),
        ("labels", ["a", ""], "a label that is empty or no string"),
        ("labels", {"a": 1}, "labels that are no list"),
        ("score", "", "no score"),
        ("score", "high", "a score that is no number"),
        ("score", True, "a score that is no finite number"),
        ("score", "inf", "a score that is no finite number"),
        ("score", float("nan"), "a score that is no finite number"),
        ("score", [1], "a score that is no number"),
        ("tokens", [], "no tokens"),
        ("tokens", ["a", " "], "an empty one among its tokens"),
        ("tokens", ["a", None], "tokens that are not all strings"),
        ("tags", [0, 1], "tags that are numbers without names"),
        ("spans", None, "no spans"),
        ("spans", "x", "spans that are no list"),
        ("spans", [[1, 2]], "a span without start, end and label"),
        ("spans", [{"start": 1, "end": 2}], "a span without a label"),
        ("spans", [{"start": "1", "end": 2, "label": "x"}], "a span whose start or end is no whole number"),
        ("answers", None, "no answers"),
        ("answers", {"text": ["a"], "answer_start": []}, "answers with more or fewer starts than texts"),
        ("answers", [{"answer_start": 1}], "an answer without a text"),
        ("answers", [{"text": "a", "answer_start": "1"}], "an answer whose start is no whole number"),
        ("intent", "", "no intent"),
        ("text_pair", " ", "no text_pair"),
    ],
)
def test_cells_that_cannot_be_used(column: str, value: Any, problem: str) -> None:
    assert kinds.KINDS[column](value, None)[1] == problem


def test_names_behind_integers() -> None:
    assert kinds.KINDS["tags"]([0, 2], ["O", "B-x", "I-x"]) == (["O", "I-x"], "")
    assert kinds.KINDS["labels"]([1, 0], ["a", "b"]) == (["a", "b"], "")


# -- marked entities


@pytest.mark.parametrize(
    "text",
    [
        "the <e1>audits</e1> were about <e2>waste</e2> .",
        "the <e1> audits </e1> were about <e2> waste </e2> .",
        "the <E1>audits</E1> were about <E2>waste</E2> .",
        "the [[ audits ]] were about << waste >> .",
    ],
)
def test_markers(text: str) -> None:
    assert relation.read(text) == ("the <e1>audits</e1> were about <e2>waste</e2> .", "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("no markers at all", "no marked entities"),
        ("<e1>a</e1> alone", "markers that are not one pair of entities"),
        ("<e1>a</e1> <e2>b</e2> <e2>c</e2>", "markers that are not one pair of entities"),
        ("<e1>a <e2>b</e2></e1>", "markers that are not one pair of entities"),
        ("<e1>a</e2> <e2>b</e1>", "markers that are not one pair of entities"),
        ("[[a]] [[b]]", "markers that are not one pair of entities"),
        ("<e1> </e1> <e2>b</e2>", "a marked entity that is empty"),
    ],
)
def test_markers_that_mark_no_pair(text: str, problem: str) -> None:
    assert relation.read(text)[1] == problem


@quick
@given(parts=st.lists(st.text(st.sampled_from("ab <>[]/e1")), min_size=5, max_size=5), second_first=st.booleans())
def test_marking_is_read_back(parts: list[str], second_first: bool) -> None:
    before, one, between, two, after = parts
    a, b = (2, 1) if second_first else (1, 2)
    text, problem = relation.read(f"{before}<e{a}>{one}</e{a}>{between}<e{b}>{two}</e{b}>{after}")
    if not problem:
        assert text == f"{before}<e{a}>{one.strip()}</e{a}>{between}<e{b}>{two.strip()}</e{b}>{after}"
        assert relation.read(text) == (text, "")


def test_relation_rows(folder: Folder, loaded: Any, refused: Any) -> None:
    rows = [f"Cause(e1,e2)\ta <e1> x{i} </e1> of <e2>y</e2>" if i % 2 else f"Other\t<e2>x{i}</e2> and <e1>y</e1>" for i in range(40)]
    path = folder(**{"train.tsv": "\n".join(rows)}) / "train.tsv"
    found, _ = loaded(path, "relation-extraction", **{"data.header": "label,text"})
    assert places(found)[1]["text"] == "a <e1>x1</e1> of <e2>y</e2>"
    assert found.facts["read"] == 40
    said = refused(
        folder(**{"bad.tsv": "\n".join([*rows, "Other\tno marks"])}) / "bad.tsv", "relation-extraction", **{"data.header": "label,text"}
    )
    assert said.startswith("1 of 41 rows in bad.tsv has no marked entities (row 41)\n")
    assert "a relation-extraction row needs a text and a label" in said


# -- answers at their offsets


@quick
@given(
    context=st.text(st.sampled_from("ab ée\n🙂"), min_size=1, max_size=30),
    at=st.tuples(st.integers(0, 29), st.integers(1, 9)),
    shift=st.sampled_from([None, 0, -3, -1, 1, 99]),
)
def test_answers_are_at_their_start_or_mended_only_when_they_occur_once(context: str, at: tuple[int, int], shift: int | None) -> None:
    start, text = at[0] % len(context), context[at[0] % len(context) :][: at[1]]
    given_start = None if shift is None else start + shift
    found, mended, problem, _ = squad.located(context, [(given_start, text)])
    occurs = [i for i in range(len(context)) if context.startswith(text, i)]
    if given_start in occurs:
        assert (found, mended, problem) == ([[given_start, text]], 0, "")
    elif len(occurs) == 1:
        assert (found, mended, problem) == ([[start, text]], 1, "")
    else:
        assert problem == "an answer that is not at its start"


def squad_file(articles: int = 12, **answers: Any) -> dict[str, Any]:
    """SQuAD with one paragraph an article and three questions each; `answers` replace those of the first question."""
    data = []
    for i in range(articles):
        context = f"Article {i} is on the river R{i} and the lake L{i}."
        qas = [
            {
                "question": f"Which {what}{i}?",
                "id": f"{i}-{what}",
                "answers": [{"text": f"{what[0].upper()}{i}", "answer_start": context.index(f" {what[0].upper()}{i}") + 1}],
            }
            for what in ("river", "lake")
        ]
        qas.append(
            {
                "question": f"Which hill{i}?",
                "id": f"{i}-hill",
                **({"answers": []} if i % 2 else {}),
                "is_impossible": True,
                "plausible_answers": [{"text": "L", "answer_start": 0}],
            }
        )
        data.append({"title": f"title {i}", "paragraphs": [{"context": context, "qas": qas}]})
    if answers:
        data[0]["paragraphs"][0]["qas"][0] |= answers
    return {"version": "v2.0", "data": data}


def test_squad(folder: Folder, loaded: Any) -> None:
    found, notes = loaded(folder(**{"train.json": json.dumps(squad_file())}) / "train.json", "probe-answers")
    rows = places(found)
    assert len(rows) == found.facts["read"] == 36
    assert all(row["context"][start : start + len(text)] == text for row in rows for start, text in row["answers"])
    assert sum(not row["answers"] for row in rows) == 12
    groups = {split: {row["group"] for row in part} for split, part in found.splits.items()}
    assert not groups["train"] & groups["test"] and not groups["train"] & groups["validation"] and not groups["test"] & groups["validation"]
    assert 'rows with the same "title" stay in one split (12 of them' in notes
    assert found.facts["group"] == "title"
    totals = [sum(part[what] for part in found.facts["answers"].values()) for what in ("answered", "unanswered")]
    assert totals == [24, 12]


def test_questions_on_one_context_stay_in_one_split(folder: Folder, loaded: Any) -> None:
    rows = [{"question": f"q {i}?", "context": f"context {i // 4} " * 20, "answers": []} for i in range(160)]
    path = folder(**{"train.jsonl": jsonl(rows)}) / "train.jsonl"
    found, notes = loaded(path, "probe-answers")
    contexts = {split: {row["context"] for row in part} for split, part in found.splits.items()}
    assert sum(map(len, contexts.values())) == len(set().union(*contexts.values())) == 40
    assert {len(row["group"]) for row in found.splits["train"]} == {16}
    assert 'rows with the same "context" stay in one split (40 of them' in notes


@pytest.mark.parametrize("start", [3, -1, 999, None])
def test_a_misplaced_answer_is_mended_and_said(folder: Folder, loaded: Any, start: int | None) -> None:
    content = squad_file(answers=[{"text": "R0", "answer_start": start}])
    found, notes = loaded(folder(**{"train.json": json.dumps(content)}) / "train.json", "probe-answers")
    assert places(found)[0]["answers"] == [[26, "R0"]]
    assert found.facts["mended"] == [{"file": "train.json", "row": 1, "reason": "an answer that was not at its start, and was found"}]
    assert "train.json: 1 row had an answer that was not at its start, and was found (row 1)" in notes


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([{"text": "river", "answer_start": 0}, {"text": "i", "answer_start": 0}], "an answer that is not at its start"),
        ([{"text": "Paris", "answer_start": 0}], "an answer that is not in its context"),
        ([{"text": " ", "answer_start": 0}], "an answer without a text"),
        (None, "no answers"),
    ],
)
def test_answers_that_cannot_be_mended(folder: Folder, refused: Any, answers: Any, reason: str) -> None:
    said = refused(folder(**{"train.json": json.dumps(squad_file(answers=answers))}) / "train.json", "probe-answers")
    assert said.startswith(f"1 of 36 rows in train.json has {reason} (row 1)\n")


# -- tokens, spans, pairs


def test_tokens_or_spans_give_the_same_rows(folder: Folder, loaded: Any) -> None:
    cities = [f"City{i}" for i in range(40)]
    tagged = [{"tokens": ["go", "to", city, "!"], "ner_tags": ["O", "O", "I-city", "O"]} for city in cities]
    spanned = [{"text": f"go to {city} !", "spans": [[6, 6 + len(city), "city"]]} for city in cities]
    path = folder(**{"tokens.jsonl": jsonl(tagged), "spans.jsonl": jsonl(spanned)})
    one, notes = loaded(path / "tokens.jsonl", "probe-tokens")
    two, _ = loaded(path / "spans.jsonl", "probe-tokens")
    assert [{**row, "file": ""} for row in places(one)] == [{**row, "file": ""} for row in places(two)]
    assert "tokens.jsonl: tags are IO; converted to BIO2" in notes
    assert one.facts["labels"] == two.facts["labels"] == ["O", "B-city", "I-city"]
    assert one.facts["entity_counts"]["train"] == {"city": one.facts["rows"]["train"]}
    assert places(one)[0] | {"file": ""} == {
        "text": "go to City0 !",
        "words": [[0, 2], [3, 5], [6, 11], [12, 13]],
        "tags": ["O", "O", "B-city", "O"],
        "row": 1,
        "file": "",
    }


def test_tokens_keep_their_own_text(folder: Folder, loaded: Any, refused: Any) -> None:
    rows = [{"text": f"go to City{i}!", "tokens": ["go", "to", f"City{i}", "!"], "tags": ["O", "O", "B-city", "O"]} for i in range(40)]
    found, _ = loaded(folder(**{"a.jsonl": jsonl(rows)}) / "a.jsonl", "probe-tokens")
    assert places(found)[0]["words"] == [[0, 2], [3, 5], [6, 11], [11, 12]]
    rows[3]["text"] = "go, to City3!"
    said = refused(folder(**{"b.jsonl": jsonl(rows)}) / "b.jsonl", "probe-tokens")
    assert "1 of 40 rows in b.jsonl has tokens that are not those of its text (row 4)" in said
    rows[3]["text"], rows[5]["tags"] = "go to City3!", ["O"]
    assert "has another number of tags than of tokens (row 6)\nrow 6: 1 tags, 4 tokens" in refused(
        folder(**{"c.jsonl": jsonl(rows)}) / "c.jsonl", "probe-tokens"
    )


def test_tags_that_break_their_scheme_are_rows(folder: Folder, refused: Any, loaded: Any) -> None:
    lines = [f"go O\nto O\nCity{i} B-city\nHall I-city\n" for i in range(30)]
    path = folder(**{"train.conll": "\n".join([*lines, "a O\nb I-city\n"])}) / "train.conll"
    said = refused(path, "probe-tokens")
    assert said.startswith(
        '1 of 31 rows in train.conll has tags that break BIO2 (row 151)\nrow 151: tag 2 is "I-city", which continues nothing\n'
    )
    found, _ = loaded(path, "probe-tokens", **{"data.on_bad_row": "drop"})
    assert found.facts["dropped"] == [{"file": "train.conll", "row": 151, "reason": "tags that break BIO2"}]
    assert sum(found.facts["rows"].values()) == 30


@pytest.mark.parametrize("source", ["parquet", "hub"])
def test_tags_that_are_class_labels(tmp_path: Path, loaded: Any, refused: Any, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    import datasets

    names = datasets.ClassLabel(names=["O", "B-city", "I-city"])
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(names)})
    rows = {"tokens": [["go", "to", f"City{i}"] for i in range(40)], "ner_tags": [[0, 0, 1]] * 40}
    made = datasets.Dataset.from_dict(rows, features=features)
    path = str(tmp_path / "train.parquet")
    if source == "hub":
        path = "owner/name"
        monkeypatch.setattr(datasets, "load_dataset", lambda name: {"train": made})
    else:
        made.to_parquet(path)
    found, _ = loaded(path, "probe-tokens")
    assert places(found)[0]["tags"] == ["O", "O", "B-city"]
    plain = datasets.Dataset.from_dict(rows)
    plain.to_parquet(tmp_path / "plain.parquet")
    assert "has tags that are numbers without names" in refused(tmp_path / "plain.parquet", "probe-tokens").replace(" have ", " has ")


def test_a_conll_file_in_another_encoding(folder: Folder, loaded: Any, refused: Any) -> None:
    content = "\n".join(f"Zürich B-city\nliegt{i} O\n" for i in range(30)).encode("latin-1")
    path = folder(**{"train.conll": content}) / "train.conll"
    said = refused(path, "probe-tokens")
    assert "train.conll is not UTF-8: byte 0xfc at offset 1 (line 1)" in said and "--set data.encoding=cp1252" in said
    found, _ = loaded(path, "probe-tokens", **{"data.encoding": "cp1252"})
    assert places(found)[0]["text"] == "Zürich liegt0"


def test_tags_without_a_type(folder: Folder, loaded: Any) -> None:
    lines = [f"go O\nCity{i} B\nHall I\n" for i in range(30)]
    found, notes = loaded(folder(**{"train.conll": "\n".join(lines)}) / "train.conll", "probe-tokens")
    assert 'tags without a type are read as of the type "entity"' in notes
    assert found.facts["labels"] == ["O", "B-entity", "I-entity"]


words = st.sampled_from(["go", "to", "Rome", "Bonn", "", " "])
cells = st.lists(st.tuples(words, st.sampled_from(["O", "B-a", "I-a", "B-b"])), max_size=3)


def opens(row: Sequence[tuple[str, str]]) -> bool:
    """A row that is used, with a B- that no word of its type stands before: its file is BIO2."""
    before = ["O", *(tag for _, tag in row)]
    return all(word.strip() for word, _ in row) and any(
        tag[0] == "B" and tag[2:] != old[2:] for old, (_, tag) in zip(before, row, strict=False)
    )


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.lists(st.tuples(cells, st.integers(0, 15)), min_size=1, max_size=40), min_size=1, max_size=2), grouped=st.booleans()
)
@example(parts=[[([("go", "O"), ("go", "I-a")], 0), *[([("go", "O")] * n, 0) for n in (1, 2, 3)]]], grouped=False)  # no B-: not BIO2
def test_every_row_is_used_or_reported_once(tmp_path: Path, parts: list[Any], grouped: bool) -> None:
    files = dict(zip(("train.jsonl", "test.jsonl") if len(parts) > 1 else ("train.jsonl",), parts, strict=True))
    for old in tmp_path.glob("*.jsonl"):
        old.unlink()
    for name, rows in files.items():
        objects = [{"tokens": [w for w, _ in row], "tags": [t for _, t in row], "speaker": f"s{group}"} for row, group in rows]
        (tmp_path / name).write_text(jsonl(objects), "utf-8")
    settings_of = {"data.group": "speaker"} if grouped else {}
    given_recipe = load(None, {"task": "probe-tokens", "data.path": str(tmp_path), "data.on_bad_row": "drop", **settings_of})
    try:
        found = data.load(given_recipe)
    except DataError:
        return
    used = [(row["file"], row["row"]) for part in found.splits.values() for row in part]
    reported = [(one["file"], one["row"]) for one in found.facts["dropped"]]
    assert sorted(used + reported) == sorted((name, i + 1) for name, rows in files.items() for i in range(len(rows)))
    known = {tag for row in found.splits["train"] for tag in row["tags"]}
    for split, part in found.splits.items():
        for row in part:
            written = files[row["file"]][row["row"] - 1][0]
            own = [tag for _, tag in written]
            assert len(row["words"]) == len(written) and [tag[2:] for tag in row["tags"]] == [tag[2:] for tag in own]
            changed = {(new[0], old[0]) for new, old in zip(row["tags"], own, strict=True) if new != old}
            assert changed <= (set() if any(opens(one) for one, _ in files[row["file"]]) else {("B", "I")}), "I- opens where no B- does"
            assert [row["text"][start:end] for start, end in row["words"]] == [word for word, _ in written]
            assert split == "train" or {tag[2:] for tag in row["tags"]} <= {tag[2:] for tag in known} | {""}
    if grouped:
        cut = [{row["group"] for row in found.splits[split]} for split in ("train", *found.facts["cut"])]
        assert sum(map(len, cut)) == len(set().union(*cut))


def test_a_type_never_seen_in_train(folder: Folder, refused: Any) -> None:
    lines = [f"go O\nCity{i} B-city\n" for i in range(30)]
    said = refused(folder(**{"train.conll": "\n".join(lines), "test.conll": "a B-town\n"}), "probe-tokens")
    assert said.startswith('1 of 1 rows in test.conll has an entity type never seen in train (row 1)\nrow 1: entity type "town"')


def test_rare_types_stay_in_train(folder: Folder, loaded: Any) -> None:
    lines = [f"go{i} O\nA B-{'common' if i else 'rare'}\n" for i in range(60)]
    for seed in range(6):
        found, _ = loaded(folder(**{"train.conll": "\n".join(lines)}) / "train.conll", "probe-tokens", seed=seed)
        assert found.facts["entity_counts"]["train"]["rare"] == 1


def test_intent_and_slots(folder: Folder, loaded: Any) -> None:
    pieces = [[{"text": f"play song{i} by "}, {"text": f"A{i}", "entity": "artist"}] for i in range(40)]
    tree = {"Play": [{"data": one} for one in pieces[:20]], "Stop": [{"data": [{"text": f"stop {i}"}]} for i in range(20)]}
    found, _ = loaded(folder(**{"train.json": json.dumps(tree)}) / "train.json", "probe-slots")
    assert places(found)[0]["intent"] == "Play"
    assert places(found)[0]["tags"] == ["O", "O", "O", "B-artist"]
    assert found.facts["label_counts"]["train"] == {"Play": 16, "Stop": 16}
    assert found.facts["labels"] == ["Play", "Stop", "O", "B-artist", "I-artist"]


def test_pairs_are_the_same_only_when_both_are(folder: Folder, loaded: Any) -> None:
    rows = [{"premise": f"p {i // 2}", "hypothesis": f"h {i % 2}", "label": "yn"[i % 2]} for i in range(40)]
    found, _ = loaded(folder(**{"train.jsonl": jsonl([*rows, rows[0]])}) / "train.jsonl", "probe-pairs")
    assert found.facts["columns"] == {"text": "premise", "text_pair": "hypothesis", "label": "label"}
    assert sum(found.facts["rows"].values()) == 40
    assert question(places(found)[0]) == "p 0\nh 0"
    single, _ = loaded(
        folder(**{"single.jsonl": jsonl([{"text": f"t {i}", "label": "yn"[i % 2]} for i in range(40)])}) / "single.jsonl", "probe-pairs"
    )
    assert single.facts["columns"] == {"text": "text", "label": "label"}


def test_scores_and_a_file_without_a_header(folder: Folder, loaded: Any, refused: Any) -> None:
    lines = "".join(f'"a, {i}",b {i},{i / 10}\n' for i in range(40))
    path = folder(**{"train.csv": lines, "dev.csv": lines.replace("a,", "c,")})
    found, _ = loaded(
        path / "train.csv", "probe-score", **{"data.header": "text,text_pair,score", "data.validation": str(path / "dev.csv")}
    )
    assert [file["split"] for file in found.facts["files"]] == ["train", "validation"]
    assert places(found)[0]["score"] == 0.0
    assert found.facts["scores"]["validation"] == {"min": 0.0, "mean": pytest.approx(1.95), "max": 3.9}
    assert found.facts["read"] == 80
    said = refused(path / "train.csv", "probe-score")
    assert "name the columns of a file without:  --header A,B" in said


def test_several_labels(folder: Folder, loaded: Any) -> None:
    rows = [{"text": f"t {i}", "labels": ["a", "b"][: i % 3]} for i in range(60)]
    found, notes = loaded(folder(**{"train.jsonl": jsonl(rows)}) / "train.jsonl", "probe-labels")
    assert found.facts["labels"] == ["a", "b"]
    assert "train.jsonl: 20 rows without any label (rows 1, 4, 7, 10, 13 and 15 more)" in notes
    assert found.facts["label_counts"]["test"]["a"] in (3, 4, 5)


def test_unbalanced_labels_are_said(folder: Folder, loaded: Any) -> None:
    rows = "text,label\n" + "".join(f"t {i},{'rare' if i % 40 == 0 else 'common'}\n" for i in range(200))
    _, notes = loaded(folder(**{"train.csv": rows}) / "train.csv")
    assert 'labels are unbalanced in train: "common" 195 times, "rare" 5' in notes
    even = "text,label\n" + "".join(f"t {i},{'ab'[i % 2]}\n" for i in range(200))
    assert "unbalanced" not in loaded(folder(**{"even.csv": even}) / "even.csv")[1]


def test_labels_that_a_split_never_shows_are_said(folder: Folder, loaded: Any) -> None:
    rows = "text,label\n" + "".join(f"t {i},{'abc'[i % 3]}\n" for i in range(60))
    _, notes = loaded(folder(**{"train.csv": rows, "test.csv": "text,label\nx,a\ny,b\n"}))
    assert "test has no row of 1 of 3 labels, so nothing proves them: c" in notes


# -- plain and parallel files


def test_plain_text(folder: Folder, loaded: Any) -> None:
    found, _ = loaded(folder(**{"train.txt": "".join(f"line {i}\n \n" for i in range(30))}), "probe-plain")
    assert [row["row"] for row in places(found)] == list(range(1, 60, 2))
    assert found.facts["columns"] == {"text": "text"}
    assert answer(places(found)[0]) == "{}"


def test_a_folder_with_tables_ignores_plain_text(folder: Folder, loaded: Any) -> None:
    rows = "text,label\n" + "".join(f"t {i},{'ab'[i % 2]}\n" for i in range(40))
    found, _ = loaded(folder(**{"train.csv": rows, "train_notes.txt": "x", "test.md": "y", "test.py": "z", "train.sh": "", "train.py": ""}))
    assert found.facts["ignored"] == ["test.md", "test.py", "train.py", "train.sh", "train_notes.txt"]


@pytest.mark.parametrize("suffixes", [("src", "tgt"), ("en", "de")])
@pytest.mark.parametrize("packed", [False, True])
def test_parallel_files(folder: Folder, loaded: Any, refused: Any, suffixes: tuple[str, str], packed: bool) -> None:
    def pack(text: str) -> bytes:
        return gzip.compress(text.encode()) if packed else text.encode()

    first, second = suffixes
    end = ".gz" if packed else ""
    lines = [f"one {i}" for i in range(40)]
    path = folder(**{f"train.{first}{end}": pack("\n".join(lines) + "\n"), f"train.{second}{end}": pack("\n".join(reversed(lines)))})
    named = {} if first == "src" else {"data.source": "en", "data.target": "de"}
    for given_path in (path, path / "train"):
        found, _ = loaded(given_path, "probe-parallel", **named)
        assert [(row["source"], row["target"]) for row in places(found)] == list(zip(lines, reversed(lines), strict=True))
    folder(**{"test.md": "x", "test.py": "y"})
    found, _ = loaded(path, "probe-parallel", **named)
    assert found.facts["ignored"] == ["test.md", "test.py"]
    (path / f"train.{second}{end}").write_bytes(pack("\n".join(lines[1:])))
    said = refused(path, "probe-parallel", **named)
    assert "has 40 lines" in said and "has 39 lines" in said


def test_halves_of_utf16_in_utf8_are_joined_and_said(folder: Folder, loaded: Any) -> None:
    rows = "text,label\n" + "".join(f"t {i},{'ab'[i % 2]}\n" for i in range(40))
    found, notes = loaded(folder(**{"train.csv": rows.encode() + b"sun \xed\xa0\xbc\xed\xbd\x95,a\n"}) / "train.csv")
    assert places(found)[-1]["text"] == "sun \U0001f355"
    assert "train.csv is CESU-8, not UTF-8: 1 character beyond U+FFFF in two halves (first on line 42)" in notes


def test_a_group_stays_in_one_split(folder: Folder, loaded: Any, refused: Any) -> None:
    rows = "text,label,group,author\n" + "".join(f"t {i},{'ab'[i % 2]},g{i // 5},w{i // 3}\n" for i in range(150))
    path = folder(**{"train.csv": rows}) / "train.csv"
    for column, name in (("group", ""), ("author", "author")):
        found, _ = loaded(path, **{"data.group": name})
        groups = {split: {row["group"] for row in part} for split, part in found.splits.items()}
        assert found.facts["group"] == column
        assert (
            not groups["train"] & groups["test"]
            and not groups["train"] & groups["validation"]
            and not groups["test"] & groups["validation"]
        )
        assert all(8 <= found.facts["rows"][split] <= 22 for split in ("test", "validation"))
    assert 'no column "auhtor" (did you mean "author"?)' in refused(path, **{"data.group": "auhtor"})


def test_a_label_of_one_group_stays_in_train(folder: Folder, loaded: Any) -> None:
    rows = "".join(f"t {i},{'rare' if i // 5 == 3 and i % 5 < 2 else 'ab'[i % 2]},g{i // 5}\n" for i in range(100))
    path = folder(**{"train.csv": "text,label,group\n" + rows}) / "train.csv"
    for seed in range(16):
        assert loaded(path, seed=seed)[0].facts["label_counts"]["train"]["rare"] == 2


def test_a_group_that_is_too_large_stays_and_rows_without_one_stand_alone(folder: Folder, loaded: Any) -> None:
    large = "".join(f"l {i},{'ab'[i % 2]},main\n" for i in range(100))
    alone = "".join(f"a {i},{'ab'[i % 2]},\n" for i in range(100))
    small = "".join(f"s {i},{'ab'[i % 2]},g{i // 5}\n" for i in range(100))
    path = folder(**{"train.csv": "text,label,speaker\n" + large + alone + small}) / "train.csv"
    for seed in range(8):
        found, _ = loaded(path, **{"data.group": "speaker"}, seed=seed)
        assert sum(row.get("group") == "main" for row in found.splits["train"]) == 100
        assert 10 <= found.facts["rows"]["test"] <= 40
        assert 1 <= sum("group" not in row for row in found.splits["test"]) < 30


def test_keys_and_answers() -> None:
    row = {"question": "Who  IS it?", "context": "It is\nMe", "answers": [[6, "Me"]]}
    assert key(row) == "who is it?\x1fit is me"
    assert json.loads(answer(row)) == {"answers": [[6, "Me"]]}
    assert key({"text": "a b", "text_pair": "c"}) != key({"text": "a", "text_pair": "b c"})
