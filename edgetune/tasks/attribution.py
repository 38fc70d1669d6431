"""What an explanation of an answer is, whoever makes it: the words of a text, each with what it adds to the score of a label.

The score is the log-odds of the label, which do not saturate as a probability near 1 does; of a number, the number itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgetune.errors import RequestError, did_you_mean
from edgetune.tasks.intent_and_slots import INTENT

# Tasks that answer a whole text -> how their `logits` are read; the others answer many things at once.
EXPLAINED = {
    "text-classification": "classes",
    "relation-extraction": "classes",
    "intent-and-slots": "classes",  # the intent
    "multi-label-classification": "labels",
    "text-regression": "number",
}
IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"  # scripts without spaces: each character by itself
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+(?:['\u2019-][^\W{IDEOGRAPHS}]+)*|[^\w\s]")


@dataclass(frozen=True)
class Word:
    """`field`[`start`:`end`] is the `word`; `attribution`: what it adds to the score, in the score's unit."""

    field: str
    start: int
    end: int
    word: str
    attribution: float = 0.0


@dataclass(frozen=True)
class Explanation:
    """`score` of `label` (None: a number is answered), and what each word adds to it. `how`: the name of the method.

    `baseline` and `gap`, of integrated gradients: the score of a text of padding, and by how much attributions and `elsewhere` (tokens that are
    no word's) miss `score` - `baseline`. `cut`: the text was longer than the model reads.
    """

    label: str | None
    score: float
    how: str
    words: tuple[Word, ...]
    cut: bool = False
    baseline: float | None = None
    elsewhere: float = 0.0
    gap: float | None = None

    @property
    def chance(self) -> float | None:
        """The probability that the score stands for, before any temperature."""
        return None if self.label is None else float(1 / (1 + np.exp(-self.score)))

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "probability": self.chance}


def kind(task: str) -> str:
    """Of EXPLAINED. Raises RequestError."""
    if task not in EXPLAINED:
        raise RequestError(f"answers of {task} cannot be explained", details=[f"those that can be: {', '.join(EXPLAINED)}"])
    return EXPLAINED[task]


def names(task: str, labels: Sequence[str]) -> list[str]:
    """The labels that `logits` are about, in their order, as an answer names them; none of a number."""
    if kind(task) == "number":
        return []
    return [label[len(INTENT) :] for label in labels if label.startswith(INTENT)] if task == "intent-and-slots" else list(labels)


def place(label: str | None, known: Sequence[str]) -> int | None:
    """The index of `label`; None when none was asked for. Raises RequestError for one that the model does not know."""
    if label is None:
        return None
    if label not in known:
        first = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
        what = f'no label "{label}"{did_you_mean(label, known)}' if known else "this model answers a number, and has no labels"
        raise RequestError(what, details=[f"labels: {first}"] if known else [])
    return known.index(label)


def score(logits: Any, index: int, kind: str) -> Any:
    """`logits` [..., classes], numpy or torch -> the score [...] of class `index`."""
    own = logits[..., index]
    if kind != "classes" or logits.shape[-1] == 1:
        return own
    keep = [i for i in range(logits.shape[-1]) if i != index]
    others = logits[..., keep]
    return own - (np.logaddexp.reduce(others, axis=-1) if isinstance(others, np.ndarray) else others.logsumexp(-1))


def words(item: Mapping[str, str], left: Sequence[str] = ()) -> list[Word]:
    """The words of every text of `item`, punctuation each by itself; not those of `left`, the markers that a text must keep."""
    found = []
    for field, text in item.items():
        spans = [match.span() for marker in left for match in re.finditer(re.escape(marker), text)]
        outside = (match for match in WORD.finditer(text) if not any(a < match.end() and match.start() < b for a, b in spans))
        found += [Word(field, match.start(), match.end(), match.group()) for match in outside]
    if not found:
        raise RequestError("the text has no word to explain")
    return found


def without(item: Mapping[str, str], word: Word) -> dict[str, str]:
    """`item` with the `word` left out, and one of the spaces around it."""
    before, after = item[word.field][: word.start], item[word.field][word.end :]
    if after[:1] == " " and before[-1:] in ("", " "):
        after = after[1:]
    return {**item, word.field: before + after if after else before.removesuffix(" ")}
