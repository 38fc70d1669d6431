"""Answers from a context: windows as transformers cuts them, spans as its example script (and its former pipeline) finds them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from transformers import BertForQuestionAnswering

from edgetune.runtime.answers import question_answering as qa
from edgetune.runtime.process import run
from edgetune.runtime.worker import BundleError

QUESTION = "where did Anna fly?"
CONTEXT = "Anna Lopez flew from Berlin to New York-Newark on Monday, café crème brûlée, 今天天气怎么样. Turn on the light (now)! "
OUTPUTS = ("start_logits", "end_logits")


@pytest.fixture
def reader(made):
    return lambda **facts: made(
        BertForQuestionAnswering, "question-answering", asks=("question", "context"), outputs=OUTPUTS, max_length=96, **facts
    )


def features(one, question: str, context: str):
    """As the example script prepares them: rows, and offsets of the tokens of the context (None: of the question)."""
    room = 96 - 3 - len(one.tokenizer(question, add_special_tokens=False)["input_ids"])
    stride = {"stride": min(qa.STRIDE, room // 2), "return_overflowing_tokens": True, "return_offsets_mapping": True}
    found = one.tokenizer(question, context, truncation="only_second", max_length=96, **stride)
    offsets = [
        [place if part == 1 else None for place, part in zip(found["offset_mapping"][i], found.sequence_ids(i), strict=True)]
        for i in range(len(found["input_ids"]))
    ]
    return found, offsets


def by_script(one, question: str, context: str) -> list[tuple[float, int, int]]:
    """(sum of logits, start, end) of every span that `postprocess_qa_predictions` may take, best first; without its cut to the 20 best
    starts and ends."""
    rows, offsets = features(one, question, context)
    every: dict[tuple[int, int], float] = {}
    for i, places in enumerate(offsets):
        with torch.no_grad():
            said = one.model(**{name: torch.tensor([rows[name][i]]) for name in ("input_ids", "attention_mask", "token_type_ids")})
        for a, b in itertools.product(range(len(places)), repeat=2):
            if places[a] and places[b] and a <= b < a + 30:
                span = (places[a][0], places[b][1])
                every[span] = max(every.get(span, -np.inf), float(said.start_logits[0, a] + said.end_logits[0, b]))
    return sorted(((total, *span) for span, total in every.items()), reverse=True)


@pytest.mark.parametrize("times", [1, 2, 6])
def test_windows_and_spans_are_those_of_transformers(reader, times):
    one = reader()
    context = CONTEXT * times
    rows, kept = one.bundle.read({"question": QUESTION, "context": context})
    expected, offsets = features(one, QUESTION, context)
    assert [row["input_ids"] for row in rows] == expected["input_ids"]
    assert [row["token_type_ids"] for row in rows] == expected["token_type_ids"]
    assert kept["windows"] == [[place for place in places if place] for places in offsets]
    assert (len(rows) > 2) == (times == 6)
    [answer] = one.bundle.predict([{"question": QUESTION, "context": context}])
    best = by_script(one, QUESTION, context)
    assert (answer["start"], answer["end"]) == best[0][1:]
    assert [(one["start"], one["end"]) for one in answer["best"]] == [span[1:] for span in best[:3]]
    assert answer["answer"] == context[answer["start"] : answer["end"]]
    top = np.exp(np.array([total for total, *_ in best[:20]]) - best[0][0])
    assert answer["score"] == pytest.approx(float(1 / top.sum()), abs=1e-4)


def test_pytorch_reads_the_same_windows(reader):
    from edgetune.runtime.pytorch import _windows

    one = reader()
    for times in (1, 3, 6):
        assert (
            _windows(one.tokenizer, QUESTION, CONTEXT * times, 96) == one.bundle.read({"question": QUESTION, "context": CONTEXT * times})[0]
        )
    assert _windows(one.tokenizer, "why " * 200, CONTEXT, 96) == []


def test_one_window_answers_as_the_former_pipeline(reader):
    """transformers 4's QuestionAnsweringPipeline: the product of both softmaxes over the context and [CLS], which is then left out."""
    one = reader()
    rows, offsets = features(one, QUESTION, CONTEXT)
    with torch.no_grad():
        said = one.model(**{name: torch.tensor([rows[name][0]]) for name in ("input_ids", "attention_mask", "token_type_ids")})
    keep = np.array([i == 0 or place is not None for i, place in enumerate(offsets[0])])
    starts, ends = (torch.softmax(torch.from_numpy(np.where(keep, said[name][0], -10000.0)), -1).numpy() for name in OUTPUTS)
    starts[0] = ends[0] = 0
    both = np.tril(np.triu(np.outer(starts, ends)), 30 - 1)
    first, last = np.unravel_index(both.argmax(), both.shape)
    [answer] = one.bundle.predict([{"question": QUESTION, "context": CONTEXT}])
    assert (answer["start"], answer["end"]) == (offsets[0][first][0], offsets[0][last][1])


def test_no_answer_where_the_first_token_is_over_the_best_span(reader):
    one = reader()
    item = {"question": QUESTION, "context": CONTEXT}
    rows, _ = one.bundle.read(item)
    outputs = one.bundle.alone(rows)
    gap = float((outputs["start_logits"][:, 0] + outputs["end_logits"][:, 0]).min()) - by_script(one, QUESTION, CONTEXT)[0][0]
    assert "None" not in one.bundle.line(one.bundle.predict([item])[0])
    one.bundle.facts["confidence"] = {"no_answer_above": gap + 1e-3}
    assert one.bundle.predict([item])[0]["answer"] is not None
    one.bundle.facts["confidence"] = {"no_answer_above": gap - 1e-3}
    [answer] = one.bundle.predict([item])
    assert (answer["answer"], answer["start"], answer["end"]) == (None, None, None)
    assert answer["best"][0]["answer"]
    assert one.bundle.line(answer).startswith("(no answer)\t")


def test_spans_are_the_best_of_all():
    rng = np.random.default_rng(0)
    for count in (1, 2, 5, 29, 30, 31, 80):
        starts, ends = rng.normal(size=(2, count))
        every = sorted(((starts[i] + ends[j], i, j) for i in range(count) for j in range(i, min(count, i + qa.LONGEST))), reverse=True)
        assert sorted(qa.spans(starts, ends), reverse=True) == every[: qa.BEST]


def test_what_cannot_be_read(reader):
    one = reader()
    with pytest.raises(BundleError, match="the context has no tokens"):
        one.bundle.predict([{"question": "why?", "context": " \u200b "}])
    long = {"question": "why " * 200, "context": CONTEXT}
    rows, kept = one.bundle.read(long)
    assert kept["cut"] is True and all(len(row["input_ids"]) <= 96 for row in rows)
    assert sum(rows[0]["token_type_ids"]) >= 96 // 2 - 2
    [answer] = one.bundle.predict([long])
    assert answer["cut"] is True and answer["answer"]


def test_golden_and_benchmark(reader):
    one = reader()
    assert one.golden[0].keys() == {"question", "context", "input_ids", "token_type_ids", *OUTPUTS}
    assert max(len(row["input_ids"]) for row in one.golden) == 96
    found = run(one.folder, ["--golden"]).found
    assert (found["passed"], found["rows"]) == (True, len(one.golden))
    found = run(one.folder, ["--benchmark", "--runs", "2", "--sequence", "real,20"]).found
    assert [item["lengths"] for item in found["latency"]] == ["real", "fixed"]
