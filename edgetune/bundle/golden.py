"""Golden vectors: inputs with the token ids and outputs that every copy of the bundle must reproduce.

The texts are synthetic (no user data) and look for trouble: scripts, accents in both normal forms, emoji, right-to-left,
blanks, very short and very long texts, numbers, capitals, typos.
"""

# ruff: noqa: RUF001 (letters that look like others are the point)

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import GateError
from edgetune.tasks import question_answering

if TYPE_CHECKING:
    from edgetune.runtime.worker import Bundle

WIDE = 1024  # values of one output from which only the largest are kept
TOP = 16  # of them; all of a generator's last prompt token
POSITIONS = 16  # tokens whose outputs are kept, when there is one a token
COMPLETION = 8  # greedy tokens kept
COMPLETE_EVERY = 6  # rows of which one has a completion: enough to prove the cache, quick on a small device
DECIMALS = 6
QUESTION = 40  # characters
WORD = re.compile(r"\S+")
LONGEST = 512  # tokens of the longest text, when the model takes more

SUBJECTS = ("the kitchen light", "my account", "the train to the coast", "a large file", "the weather", "our last order", "the garden gate")
VERBS = ("turn on", "check", "find", "cancel", "repeat", "describe", "move", "forget about", "wait for", "rename")
ENDS = ("", " please", " now", " before 7:30 am", ", if you can", " in 10 minutes", " again and again", "?", "!", "...")
ACCENTS = ("café crème brûlée", "naïve coöperation", "Ångström über Łódź", "Đặng Thị Hồng Gấm")  # also in their other normal form
ODD = (
    *("a", "I", "7", "?", "!", ".", "é", "中", "🙂", "ß", "\u200b", "-"),
    *ACCENTS,
    *(unicodedata.normalize("NFD", text) for text in ACCENTS),
    *("今天天气怎么样", "電気をつけてください", "불을 켜 주세요", "включи свет на кухне", "άναψε το φως"),
    *("أشعل ضوء المطبخ", "הדלק את האור במטבח", "रसोई की बत्ती जलाओ", "เปิดไฟในครัว"),
    *("🙂🙃 lights on 💡", "👩‍👩‍👧‍👦 family 🇫🇷", "thumbs 👍🏽 up", "❤️ vs ❤"),
    *(
        "   leading and trailing   ",
        "tab\tseparated\twords",
        "two\nlines",
        "windows\r\nlines",
        "many     blanks",
        "\u00a0no-break\u00a0space",
    ),
    *("100", "3.14159", "1,000,000.00", "-42", "1e-9", "0x7f", "2026-11-22", "+44 20 7946 0000", "50%", "$19.99", "№ 5"),
    *(
        "wait...what?!",
        "(brackets) [and] {more}",
        "\"quoted\" and 'single'",
        "a/b\\c|d",
        "#tag @name",
        "user@example.com",
        "https://example.com/a?b=c&d=e",
    ),
    *("find . -name '*.png' | xargs rm -i", "print('hello')", "<b>bold</b> &amp;", "SELECT * FROM t;", "C:\\Users\\x", "e=mc²"),
    *(
        "TURN ON THE LIGHT",
        "tUrN oN",
        "Straße STRASSE",
        "İstanbul ılık",
        "ﬁne ligature",
        "ｆｕｌｌ ｗｉｄｔｈ",
        "x" * 60,
        "supercalifragilisticexpialidocious",
    ),
)


def synthetic(tokenizer: Any, count: int = 128, seed: int = 0, max_length: int = LONGEST) -> list[str]:
    """`count` different texts, the same for the same arguments; one is a little under `max_length` tokens, one over.

    `tokenizer` is a transformers tokenizer; it only decides how long the long texts are.
    """
    draw = random.Random(seed)
    long = _long(tokenizer, min(max_length, LONGEST), draw)
    texts = dict.fromkeys([*long, *ODD])
    sentences = _sentences(draw)
    while len(texts) < count:
        texts[next(sentences)] = None
    return list(texts)[:count]


def items(texts: Sequence[str], asks: Sequence[str], markers: Sequence[str] = ()) -> list[dict[str, str]]:
    """An item for each text: with more than one field asked, the last one is the text and the others are those before it, in turn.

    A question is the start of one: it is never longer than what a model reads. With the four `markers` of a task a text's first two words are
    its entities.
    """
    texts = [_marked(text, markers) for text in texts] if markers else texts
    *before, last = asks
    made = [{name: texts[i - len(before) + k] for k, name in enumerate(before)} | {last: text} for i, text in enumerate(texts)]
    return [{name: text[:QUESTION] if name == "question" else text for name, text in item.items()} for item in made]


def _marked(text: str, markers: Sequence[str]) -> str:
    words = [match.span() for match in WORD.finditer(text)][:2]
    (a, b), (c, d) = words if len(words) == 2 else (words[0], (len(text), len(text)))
    first, second = text[a:b], text[c:d] or text[a:b]
    return f"{text[:a]}{markers[0]}{first}{markers[1]}{text[b:c]}{markers[2]}{second}{markers[3]}{text[d:]}"


def rows(bundle: Bundle, tokenizer: Any, given: Sequence[Mapping[str, str]]) -> Iterator[dict[str, Any]]:
    """One row of golden.jsonl an item: its inputs by transformers' `tokenizer`, outputs by the bundle's own graph.

    Of an item that is read in windows the first one counts. Items that run.py refuses, those without tokens, and prompts that leave no room
    for an answer are left out. Raises GateError when run.py would make other token ids than transformers (and so than training) did.
    """
    from itertools import islice

    from edgetune.runtime.worker import BundleError, of_tokens

    made = 0
    for item in given:
        try:
            ours = bundle.read(item)[0][0]
        except BundleError:  # it is asked for something else
            continue
        trained = _as_trained(bundle, tokenizer, item)
        ids = trained["input_ids"]
        if not ids or (bundle.generation is not None and bundle.decoder is None and len(ids) + COMPLETION >= bundle.max_length):
            continue
        if any(ours[name] != trained[name] for name in ours):
            raise GateError(
                "the bundle would read a text differently from how it was trained",
                details=[
                    f"text: {' | '.join(item.values())[:80]!r}",
                    *(f"transformers: {name} {trained[name][:20]}" for name in ours),
                    *(f"tokenizer.json: {name} {ours[name][:20]}" for name in ours),
                ],
                mend="save the model's tokenizer again with a current transformers, and export again",
            )
        row: dict[str, Any] = {**item, **ours}
        for name, values in bundle.outputs([ours]).items():
            if bundle.generation is not None:
                row[name] = _largest(values[0, -1])
            else:
                row[name] = _tokens(values[0]) if of_tokens(name, values) else _values(values[0])
        if bundle.generation is not None and made % COMPLETE_EVERY == 0:
            row["completion"] = list(islice(bundle.tokens(ours), COMPLETION))
        made += 1
        yield row


def _as_trained(bundle: Bundle, tokenizer: Any, item: Mapping[str, str]) -> dict[str, list[int]]:
    """The first row of `item` as the task's `encode` makes it for training, without the answer."""
    if bundle.generation is None or bundle.decoder is not None:
        if "question" in item:  # read in windows
            found = question_answering.encode([{**item, "answers": []}], tokenizer, max_length=bundle.max_length).examples[0]
        else:
            found = tokenizer(*item.values(), truncation=True, max_length=bundle.max_length)
        return {"token_type_ids": [0] * len(found["input_ids"]), **found}
    text = item["text"].strip()
    prompt = bundle.generation["prefix"] + text + bundle.generation["suffix"]
    if tokenizer.chat_template:
        system = bundle.generation.get("system")
        turns = [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return dict(tokenizer(prompt, add_special_tokens=False, verbose=False))


def _tokens(values: np.ndarray) -> list[list[Any]]:
    """[tokens] or [tokens, ...] -> [position, what is there] of some of them, evenly."""
    places = np.unique(np.linspace(0, len(values) - 1, POSITIONS).round().astype(int))
    return [[int(place), _values(values[place])] for place in places]


def _values(values: np.ndarray) -> Any:
    """A number, all of [n], or of many the largest as [index, value]."""
    if values.ndim == 0:
        return round(float(values), DECIMALS)
    return _largest(values) if len(values) > WIDE else [round(float(value), DECIMALS) for value in values]


def _largest(values: np.ndarray) -> list[list[Any]]:
    return [[int(i), round(float(values[i]), DECIMALS)] for i in (-values).argsort(kind="stable")[:TOP]]


def _sentences(draw: random.Random) -> Iterator[str]:
    while True:
        text = f"{draw.choice(VERBS)} {draw.choice(SUBJECTS)}{draw.choice(ENDS)}"
        if draw.random() < 0.3:
            text += f" and then {draw.choice(VERBS)} {draw.choice(SUBJECTS)} {draw.randrange(2, 1000)} times"
        yield _typo(text, draw) if draw.random() < 0.3 else text


def _typo(text: str, draw: random.Random) -> str:
    """Two neighbouring letters change places, or one is lost."""
    at = draw.randrange(len(text) - 1)
    return text[:at] + text[at + 1] + draw.choice((text[at], "")) + text[at + 2 :]


def _long(tokenizer: Any, tokens: int, draw: random.Random) -> list[str]:
    """A text of at most 0.9 x `tokens` tokens, and one of at least 1.1 x."""
    sentences = _sentences(draw)
    words: list[str] = []
    while len(tokenizer(" ".join(words), verbose=False)["input_ids"]) < 1.1 * tokens and len(words) < 10 * tokens:
        words += next(sentences).split()
    under = list(words)
    while len(tokenizer(" ".join(under), verbose=False)["input_ids"]) > 0.9 * tokens and len(under) > 1:
        del under[-max(1, len(under) // 20) :]
    return [" ".join(under), " ".join(words)]
