"""A text that answers a prompt, token by token with a cache."""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Iterator, Mapping, Sequence  # noqa: UP035

import numpy as np

from .probability import softmax

WHOLE = True


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], None]:
    """The prompt as in training, whole or not at all."""
    prompt = bundle.generation["prefix"] + item["text"].strip() + bundle.generation["suffix"]
    found = bundle.tokenizer.encode(prompt, add_special_tokens=False)
    if len(found.ids) >= bundle.max_length:
        raise bundle.error(f"the prompt has {len(found.ids)} tokens; this model takes {bundle.max_length - 1}")
    return [{"input_ids": found.ids}], None


def generate(
    bundle: Any, item: Mapping[str, str], max_new_tokens: int, temperature: float, top_p: float, seed: int, on_text: Any
) -> dict[str, Any]:
    """See run.py's `Bundle.generate`."""
    ids: list[int] = []
    shown, finished = "", False
    [row], _ = read(bundle, item)
    for token in islice(bundle.tokens(row, sampler(temperature, top_p, seed)), max_new_tokens or bundle.generation["max_new_tokens"]):
        finished = token in bundle.generation["stop_ids"]
        if finished:
            break
        ids.append(token)
        text = bundle.tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # half of a character: wait for the rest of it
            on_text(text[len(shown) :])
            shown = text
    text = bundle.tokenizer.decode(ids)
    on_text(text[len(shown) :])
    return {"text": text, "tokens": ids, "finished": finished}


def tokens(bundle: Any, row: Mapping[str, Sequence[int]], choose: Callable[[np.ndarray], Any]) -> Iterator[int]:
    """See run.py's `Bundle.tokens`."""
    if not row["input_ids"]:
        raise bundle.error("nothing to continue: the prompt has no tokens")
    ids, past = np.array([row["input_ids"]], dtype=np.int64), None
    for length in range(ids.shape[1], bundle.max_length):
        found, past = bundle.forward({"input_ids": ids, "attention_mask": np.ones((1, length), dtype=np.int64)}, past)
        token = int(choose(found["logits"][0, -1]))
        yield token
        ids = np.array([[token]], dtype=np.int64)


def sampler(temperature: float, top_p: float, seed: int) -> Callable[[np.ndarray], Any]:
    """How the next token is chosen: the likeliest, or drawn from the smallest set that holds `top_p` (arXiv:1904.09751)."""
    random = np.random.default_rng(seed)

    def draw(logits: np.ndarray) -> Any:
        order = np.argsort(-logits, kind="stable")
        chances = softmax(logits[order] / temperature)
        kept = chances[: int(np.searchsorted(chances.cumsum(), top_p)) + 1]
        return order[random.choice(len(kept), p=kept / kept.sum())]

    return draw if temperature > 0 else np.argmax


def line(found: Mapping[str, Any]) -> str:
    return str(found["text"])
