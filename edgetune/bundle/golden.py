"""Golden vectors: inputs with the token ids and outputs that every copy of the bundle must reproduce.

The texts are synthetic (no user data) and look for trouble: scripts, accents in both normal forms, emoji, right-to-left,
blanks, very short and very long texts, numbers, capitals, typos.
"""

# ruff: noqa: RUF001 (letters that look like others are the point)

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgetune.errors import GateError

if TYPE_CHECKING:
    from edgetune.runtime.worker import Bundle

TOP = 16  # logits kept of a generator's last prompt token
COMPLETION = 8  # greedy tokens kept
COMPLETE_EVERY = 6  # rows of which one has a completion: enough to prove the cache, quick on a small device
DECIMALS = 6
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


def rows(bundle: Bundle, tokenizer: Any, texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One row of golden.jsonl a text: ids by transformers' `tokenizer`, outputs by the bundle's own graph.

    Texts without tokens, and prompts that leave no room for an answer, are left out. Raises GateError when run.py would make
    other token ids than transformers (and so than training) did.
    """
    from itertools import islice

    made = 0
    for text in texts:
        ids = _training_ids(bundle, tokenizer, text)
        if not ids or (bundle.generation is not None and len(ids) + COMPLETION >= bundle.max_length):
            continue
        ours, _ = bundle.encode(text)
        if ours != ids:
            raise GateError(
                "the bundle would read a text differently from how it was trained",
                details=[f"text: {text[:80]!r}", f"transformers: {ids[:20]}", f"tokenizer.json: {ours[:20]}"],
                mend="save the model's tokenizer again with a current transformers, and export again",
            )
        logits = bundle.logits([ids])[0]
        row: dict[str, Any] = {"text": text, "input_ids": ids}
        if bundle.generation is None:
            row["logits"] = [round(float(value), DECIMALS) for value in logits]
        else:
            last = logits[-1]
            row["logits"] = [[int(token), round(float(last[token]), DECIMALS)] for token in (-last).argsort(kind="stable")[:TOP]]
            if made % COMPLETE_EVERY == 0:
                row["completion"] = list(islice(bundle.tokens(ids), COMPLETION))
        made += 1
        yield row


def _training_ids(bundle: Bundle, tokenizer: Any, text: str) -> list[int]:
    """As the task's `encode` makes them for training."""
    if bundle.generation is None:
        return list(tokenizer(text, truncation=True, max_length=bundle.max_length)["input_ids"])
    prompt = bundle.generation["prefix"] + text.strip() + bundle.generation["suffix"]
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": text.strip()}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"])


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
