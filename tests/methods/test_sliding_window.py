"""The baseline of questions: its window against MCTest's algorithm written out, and what it answers where that is plain."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgetune.methods import baselines, sliding_window
from edgetune.tasks import question_answering

CONTEXT = "The old mill stands by the river. The song was written by Ada Lovelace in the year 1843. The town is small."
COMMON = {"the", "is", "was", "by", "in", "."}


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("By who was the song written in the year 1843?", "Ada Lovelace"),
        ("In which year was the song by Ada Lovelace written?", "1843"),
        ("What stands by the river?", "old mill"),
        ("How is the town?", "small"),
    ],
)
def test_the_answer_stands_where_the_question_does(question: str, answer: str) -> None:
    start, end = sliding_window.best(question, CONTEXT, COMMON)
    assert CONTEXT[start:end] == answer


def test_the_window_is_mctests() -> None:
    """Algorithm 1: for each place j the sum over |S| words of log(1 + 1 / C(word)) of those in S; the largest."""
    chance = np.random.default_rng(0)
    passage = [str(word) for word in chance.integers(0, 12, 60)]
    weight = {word: math.log(1 + 1 / passage.count(word)) for word in passage}
    for size in (1, 3, 7, 200):
        wanted = {str(word) for word in chance.integers(0, 20, size)}
        sums = [
            sum(weight[word] for word in passage[j : j + len(wanted)] if word in wanted)
            for j in range(max(1, len(passage) - len(wanted) + 1))
        ]
        assert sliding_window._window(passage, wanted, weight) == pytest.approx(max(sums))


def example(item: int, question: str, *answers: str) -> dict[str, Any]:
    return {"item": item, "question": question, "context": CONTEXT, "answers": list(answers), "by_character": False}


def test_its_scores_are_those_of_the_task_without_a_loss() -> None:
    """Windows of one question are one; a question without an answer is answered all the same, and wrongly."""
    test = [
        example(1, "What stands by the river?", "old mill"),
        example(0, "In which year was the song by Ada Lovelace written?", "the year 1843"),
        example(0, "In which year was the song by Ada Lovelace written?", "the year 1843"),
        example(2, "Who lives on the moon?"),
    ]
    train = [{"context": "The cat is in the garden. It was by the wall."}, {"context": "The sun is in the sky. It was by the moon."}]
    scores = baselines.BASELINES["question-answering"](None, train, test, 0, 0, None)
    assert scores.value.tolist() == pytest.approx([2 / 3, 1, 0])
    found = question_answering.metrics(scores)
    assert found == pytest.approx({"f1": 5 / 9, "exact_match": 1 / 3, "has_answer_f1": 5 / 6, "no_answer_accuracy": 0})


def test_a_text_of_common_words_has_no_answer() -> None:
    assert sliding_window.best("what is it", "It is what it is.", {"it", "is", "what", "."}) == (0, 0)
    assert sliding_window.best("", "", set()) == (0, 0)


def test_scripts_without_blanks() -> None:
    context = "黑豹队赢了比赛。教练是里维拉。"
    start, end = sliding_window.best("教练是谁？", context, {"是", "了", "。"})
    assert context[start:end] == "里维拉"
