"""Answers to questions by the words that they share with a text, without any model.

What SQuAD's paper (arXiv:1606.05250, section 5) took for its baseline: of the candidates, those in the sentence that shares most words and
pairs of words with the question; among them the one that the sliding window of MCTest (Richardson et al. 2013, D13-1020, algorithm 1)
prefers. Candidates there are the constituents of a parser; here, in any language, the longest runs of words that are neither in the question
nor common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import log
from typing import Any

import numpy as np

from edgetune.tasks import Scores
from edgetune.tasks.entities import WORD
from edgetune.tasks.question_answering import (
    ANSWERABLE,
    EXACT,
    EXACT_ANSWERED,
    F1_ANSWERED,
    GAP,
    LOSS,
    compare,
)

COMMON = 0.2  # share of the texts to learn from that a common word is in
LONGEST = 10  # words of an answer
END = re.compile(r"[.!?\u3002\uff01\uff1f]+")  # of a sentence, as a word's only characters

Word = tuple[str, int, int]  # in lower case, start and end in characters


def sliding_window(
    model: Any, train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], pad_id: int, classes: int, device: Any
) -> Scores:
    """Scores on `test` as `question_answering.score` gives them, but for the loss, which is not a number; an answer is always given."""
    common = _common({example["context"] for example in train})
    questions = {example["item"]: example for example in test}
    extra = np.zeros((len(questions), 6))
    extra[:, LOSS], extra[:, GAP] = np.nan, -1.0
    for row, (_, example) in zip(extra, sorted(questions.items()), strict=True):
        start, end = best(example["question"], example["context"], common)
        row[ANSWERABLE] = bool(example["answers"])
        if example["answers"]:
            pairs = [compare(example["context"][start:end], right, example["by_character"]) for right in example["answers"]]
            row[F1_ANSWERED], row[EXACT_ANSWERED] = max(f1 for f1, _ in pairs), max(exact for _, exact in pairs)
    extra[:, EXACT] = extra[:, EXACT_ANSWERED]
    return Scores(extra[:, F1_ANSWERED].copy(), np.ones(len(extra)), extra=extra)


def best(question: str, context: str, common: Collection[str]) -> tuple[int, int]:
    """(start, end) of the answer in `context`, in characters; (0, 0) where every word is common or in the question."""
    asked = [word for word, _, _ in _words(question)]
    words = _words(context)
    known = {*asked, *common}
    found = [
        (_overlap(asked, sentence, first, last), sentence[first][1], sentence[last][2], [word for word, _, _ in sentence[first : last + 1]])
        for sentence in _sentences(words)
        for first, last in _candidates(sentence, known)
    ]
    if not found:
        return 0, 0
    most = max(overlap for overlap, *_ in found)
    weight = {word: log(1 + 1 / count) for word, count in Counter(word for word, _, _ in words).items()}
    passage = [word for word, _, _ in words]
    _, start, end = max((_window(passage, {*asked, *own}, weight), -start, end) for overlap, start, end, own in found if overlap == most)
    return -start, end


def _words(text: str) -> list[Word]:
    return [(match.group().lower(), *match.span()) for match in WORD.finditer(text)]


def _common(texts: Iterable[str]) -> set[str]:
    """Words in COMMON of the texts, and all punctuation."""
    every = [{word for word, _, _ in _words(text)} for text in texts]
    counts = Counter(word for words in every for word in words)
    return {word for word, count in counts.items() if count >= max(2, COMMON * len(every))}


def _sentences(words: Sequence[Word]) -> Iterator[list[Word]]:
    sentence: list[Word] = []
    for word in words:
        sentence.append(word)
        if END.fullmatch(word[0]):
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _candidates(sentence: Sequence[Word], known: Collection[str]) -> Iterator[tuple[int, int]]:
    """(first, last) word of each longest run of words that are not `known`, and no punctuation; of at most LONGEST words."""
    start = None
    for place, (word, _, _) in enumerate([*sentence, (".", 0, 0)]):
        inside = word not in known and any(character.isalnum() for character in word)
        if inside and start is None:
            start = place
        elif not inside and start is not None:
            yield start, min(place - 1, start + LONGEST - 1)
            start = None


def _overlap(asked: Sequence[str], sentence: Sequence[Word], first: int, last: int) -> int:
    """Words and pairs of words that the question and the sentence without the candidate have in common."""
    around = [word for word, _, _ in sentence[:first]], [word for word, _, _ in sentence[last + 1 :]]
    words = {word for part in around for word in part}
    pairs = {pair for part in around for pair in pairwise(part)}
    return len(words & set(asked)) + len(pairs & set(pairwise(asked)))


def _window(passage: Sequence[str], wanted: Collection[str], weight: Mapping[str, float]) -> float:
    """The most that `len(wanted)` neighbouring words of the passage have of the weight of those that are wanted."""
    gains = np.cumsum([0.0, *(weight[word] if word in wanted else 0.0 for word in passage)])
    size = min(len(wanted), len(passage))
    return float((gains[size:] - gains[:-size]).max())
