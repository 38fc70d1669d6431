"""Harder rows than the data has: with typing errors, and with words that training never saw. And more text of the same kind, for distillation.

All of it is drawn from a seed and the text itself, so the same rows give the same noise, whatever stands beside them.
The changes of `augment` follow Tang et al., "Distilling Task-Specific Knowledge from BERT" (arXiv:1903.12136): words dropped, spans cut out;
and add spans exchanged between texts, and words for near ones (TinyBERT, arXiv:1909.10351).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from edgetune.data.columns import question

CHANGED = ("text", "prompt", "question", "source")  # what a person types
Asked = tuple[str, ...]  # a text, or a pair
Change = Callable[[str, random.Random, Sequence[str]], str]
WORD = re.compile(r"[^\W\d_]{3,}")  # what people mistype: three letters or more
ANY_WORD = re.compile(r"\w+")
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
DROPOUT = 0.2  # of the words
EXCHANGED = 0.3  # of the texts with markers get what another has between them
NEAR_WORD = re.compile(r"[^\W\d_]{2,}")
NEAR_TEXTS = 0.4  # of the altered texts, where it is known which words are near
NEAR_WORDS = 0.3  # of the words in these
TRIES = 20  # drawn for each text that is asked for, before giving up on a set that has no more to offer


def typos(rows: Iterable[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The rows with one or two typing errors in what is asked (`text`, `prompt`, `question`, `source` or the last user's message).

    A letter becomes its neighbour on a QWERTY keyboard, is lost, doubled, or changes places with the next. A text without a word of three
    letters stays as it is.
    """
    return [with_question(row, lambda text: mistype(text, random.Random(f"{seed} {text}"))) for row in rows]


def unseen(rows: Iterable[Mapping[str, Any]], train_texts: Iterable[str], tokenizer: Any) -> list[dict[str, Any]]:
    """The rows that have a word, or a piece of the transformers `tokenizer`, that no training text has. Case of letters does not count in words."""
    train = list(train_texts)
    words = {word for text in train for word in _words(text)}
    pieces = {i for ids in _encoded(train, tokenizer) for i in ids}
    rows = list(rows)
    questions = [_question(row) for row in rows]
    encoded = _encoded(questions, tokenizer)
    return [
        dict(row)
        for row, text, ids in zip(rows, questions, encoded, strict=True)
        if not pieces.issuperset(ids) or any(word not in words for word in _words(text))
    ]


def augment(
    asked: Sequence[Asked], n: int, seed: int, markers: Sequence[str] = (), near: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> list[Asked]:
    """`n` different texts (or pairs of texts) like `asked`, none of them among `asked`, without labels: a teacher says what they mean.

    Each is one of them with words dropped, a span cut out, a span exchanged for one of another text, or typing errors; some have another
    case or punctuation too. Others have some of their words exchanged for one that is `near` (word in small letters -> others). Of a pair one
    text is changed. What stands between `markers`, an opening and a closing one in turn, stays, has near words, or is exchanged for what stands
    there in another text. Fewer than `n` come back only where a small set has no more to offer.
    """
    draw = random.Random(f"{seed} {len(asked)}")
    known, found = set(asked), dict[Asked, None]()
    columns = [_plain(column, markers) for column in zip(*asked, strict=True)]
    for _ in range(n * TRIES if asked else 0):
        if len(found) == n:
            break
        change, new = draw.choice(CHANGES), list(draw.choice(asked))
        at = draw.randrange(len(new)) if len(new) > 1 else 0
        if near and draw.random() < NEAR_TEXTS:
            new[at] = _with_near(new[at], markers, near, draw)
        else:
            new[at] = _outside(new[at], markers, partial(_altered, change=change, draw=draw, others=columns[at]))
        if markers and draw.random() < EXCHANGED:
            new[at] = _entities(new[at], draw.choice(asked)[at], markers)
        if all(map(ANY_WORD.search, new)) and tuple(new) not in known:
            found[tuple(new)] = None
    return list(found)


def _altered(text: str, change: Change, draw: random.Random, others: Sequence[str]) -> str:
    new = change(text, draw, others)
    if draw.random() < 0.2:
        new = mistype(new, draw)
    return draw.choice(SURFACES)(new) if draw.random() < 0.2 else new


def marked(markers: Sequence[str]) -> re.Pattern[str]:
    """What stands between two markers, with them: one group for each pair of markers."""
    pairs = zip(markers[::2], markers[1::2], strict=True)
    return re.compile("|".join(f"({re.escape(opening)}.*?{re.escape(closing)})" for opening, closing in pairs), re.DOTALL)


def _outside(text: str, markers: Sequence[str], change: Callable[[str], str]) -> str:
    """`text` with what stands outside of the markers changed, and blanks kept where they touch."""
    if not markers:
        return change(text)
    out, at = "", 0
    for place in [*(match.span() for match in marked(markers).finditer(text)), (len(text), len(text))]:
        part = text[at : place[0]]
        new = change(part) if part.strip() else part
        out += " " * part.startswith(" ") + new.strip() + " " * part.endswith(" ") + text[slice(*place)]
        at = place[1]
    return out


def _with_near(text: str, markers: Sequence[str], near: Mapping[str, Sequence[str]], draw: random.Random) -> str:
    """`text` with some of its words exchanged for near ones, between `markers` too; a first capital stays."""

    def exchanged(match: re.Match[str]) -> str:
        word = match.group()
        others = near.get(word.lower())
        if not others or draw.random() >= NEAR_WORDS:
            return word
        new = draw.choice(others)
        return new.capitalize() if word[0].isupper() else new

    parts = re.split(f"({'|'.join(map(re.escape, markers))})", text) if markers else [text]
    return "".join(part if part in markers else NEAR_WORD.sub(exchanged, part) for part in parts)


def _entities(text: str, other: str, markers: Sequence[str]) -> str:
    """`text` with what `other` has between the same markers."""
    given = {match.lastindex: match.group() for match in marked(markers).finditer(other)}
    return marked(markers).sub(lambda match: given.get(match.lastindex, match.group()), text)


def _plain(texts: Sequence[str], markers: Sequence[str]) -> list[str]:
    return [" ".join(re.sub("|".join(map(re.escape, markers)), " ", text).split()) for text in texts] if markers else list(texts)


def mistype(text: str, draw: random.Random) -> str:
    """`text` with one or two typing errors."""
    for _ in range(draw.choice((1, 2))):
        words = list(WORD.finditer(text))
        if not words:
            break
        word = draw.choice(words)
        wrong = word.group()
        for _ in range(TRIES):  # swapping two equal letters changes nothing
            wrong = draw.choice(SLIPS)(word.group(), draw)
            if wrong != word.group():
                break
        text = text[: word.start()] + wrong + text[word.end() :]
    return text


def _neighbours() -> dict[str, str]:
    """The letters around each letter: beside it, and half a key off in the rows above and below."""
    place = {letter: (column + 0.5 * row, row) for row, letters in enumerate(KEYBOARD) for column, letter in enumerate(letters)}
    return {
        letter: "".join(other for other, (x, y) in place.items() if other != letter and abs(x - at) <= 1 and abs(y - row) <= 1)
        for letter, (at, row) in place.items()
    }


NEIGHBOURS = _neighbours()


def _beside(word: str, draw: random.Random) -> str:
    at = draw.randrange(len(word))
    near = NEIGHBOURS.get(word[at].lower())
    if near is None:
        return _swap(word, draw)
    letter = draw.choice(near)
    return word[:at] + (letter.upper() if word[at].isupper() else letter) + word[at + 1 :]


def _swap(word: str, draw: random.Random) -> str:
    at = draw.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _drop(word: str, draw: random.Random) -> str:
    at = draw.randrange(len(word))
    return word[:at] + word[at + 1 :]


def _double(word: str, draw: random.Random) -> str:
    at = draw.randrange(len(word))
    return word[: at + 1] + word[at:]


SLIPS: tuple[Callable[[str, random.Random], str], ...] = (_beside, _swap, _drop, _double)


def _units(text: str) -> tuple[list[str], str]:
    """The parts of a text that can be moved, and what joins them: words, or characters where there are no spaces."""
    words = text.split()
    return (words, " ") if len(words) > 1 else (list(text.strip()), "")


def _span(units: Sequence[str], draw: random.Random) -> tuple[int, int]:
    start, end = sorted((draw.randrange(len(units)), draw.randrange(len(units))))
    return start, end + 1


def _without_words(text: str, draw: random.Random, others: Sequence[str]) -> str:
    units, glue = _units(text)
    return glue.join(unit for unit in units if draw.random() >= DROPOUT)


def _cut(text: str, draw: random.Random, others: Sequence[str]) -> str:
    units, glue = _units(text)
    if not units:
        return text
    start, end = _span(units, draw)
    return glue.join(units[start:end])


def _exchange(text: str, draw: random.Random, others: Sequence[str]) -> str:
    (units, glue), (given, inner) = _units(text), _units(draw.choice(others))
    if not units or not given:
        return text
    (start, end), (first, last) = _span(units, draw), _span(given, draw)
    return glue.join(part for part in (*units[:start], inner.join(given[first:last]), *units[end:]))


def _mistyped(text: str, draw: random.Random, others: Sequence[str]) -> str:
    return mistype(text, draw)


CHANGES: tuple[Change, ...] = (_without_words, _cut, _exchange, _exchange, _mistyped)
SURFACES: tuple[Callable[[str], str], ...] = (
    str.lower,
    str.upper,
    str.capitalize,
    lambda text: text.rstrip(".?!"),
    lambda text: f"{text.rstrip('.?!')}?",
    lambda text: text.replace(",", "").replace("'", ""),
)


def _question(row: Mapping[str, Any]) -> str:
    if "messages" in row:
        return next((message["content"] for message in reversed(row["messages"]) if message["role"] == "user"), "")
    return question(row)


def with_question(row: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The row with its text, prompt, question or source changed; words of a tagged text keep their tags and get their new places."""
    if "words" in row:
        return _with_words(row, change)
    if "messages" not in row:
        column = next(column for column in CHANGED if column in row)
        return {**row, column: change(row[column])}
    messages = [dict(message) for message in row["messages"]]
    last = next((message for message in reversed(messages) if message["role"] == "user"), None)
    if last is not None:
        last["content"] = change(last["content"])
    return {**row, "messages": messages}


def _with_words(row: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    text, places = row["text"], row["words"]
    words = change("\n".join(text[start:end] for start, end in places)).split("\n")
    if len(words) != len(places):  # a word that holds a line break
        return dict(row)
    out, moved, at = "", [], 0
    for word, (start, end) in zip(words, places, strict=True):
        out += text[at:start]
        moved.append([len(out), len(out) + len(word)])
        out += word
        at = end
    return {**row, "text": out + text[at:], "words": moved}


def _words(text: str) -> Iterator[str]:
    return (match.group().casefold() for match in ANY_WORD.finditer(text))


def _encoded(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    return tokenizer(list(texts), truncation=False, verbose=False)["input_ids"] if texts else []
