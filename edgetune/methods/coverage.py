"""Whether a base was made for the language of some texts: how much of them its vocabulary cannot spell, and into how many pieces it breaks words.

The second is called fertility (Rust et al., "How Good is Your Tokenizer?", arXiv:2012.15613). all-MiniLM-L6-v2, which is English: 1.1 tokens a word and
nothing unknown in English, 1.9 in German; 62 % of its tokens of Chinese are unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetune import progress
from edgetune.data.kinds import ASKED
from edgetune.tasks.attribution import WORD

MOST_ROWS = 1000  # looked at, evenly spread
UNKNOWN, FERTILE = 0.05, 1.75  # from which on it is said
TIMES = 1.5  # or so many times the tokens a word that the run's own test rows have


def measure(tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`unknown` (share of tokens) and `a_word` (tokens a word, an ideograph being one) of what is asked in `rows`; nothing where there is no word."""
    some = rows[:: -(-len(rows) // MOST_ROWS)] if rows else []
    texts = [row[name] for row in some for name in ASKED if isinstance(row.get(name), str)]
    words = sum(len(WORD.findall(text)) for text in texts)
    if not words:
        return {}
    tokens = [token for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] for token in ids]
    return {"unknown": tokens.count(tokenizer.unk_token_id) / max(1, len(tokens)), "a_word": len(tokens) / words}


def tell(name: str, found: Mapping[str, float], own: Mapping[str, float] | None = None) -> None:
    """Say where the base was not made for the rows called `name`; `own`: of the run's own test rows, which they are held against."""
    if not found:
        return
    beside = f" (test: {own['a_word']:.2f})" if own else ""
    if found["unknown"] >= UNKNOWN:
        progress.warn(
            f"{name}: the base does not know {found['unknown']:.0%} of its tokens: it was not made for this language or script, and sees "
            "blanks there; a multilingual base would be needed (multilingual MiniLM, XLM-R)"
        )
    elif found["a_word"] >= (min(FERTILE, TIMES * own["a_word"]) if own else FERTILE):
        progress.note(
            f"{name}: the base breaks a word into {found['a_word']:.2f} tokens{beside}, where 1.0 to 1.3 is usual: it was hardly trained "
            "on this language or jargon; a multilingual base, or more pre-training on such texts, would help"
        )
