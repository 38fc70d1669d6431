"""A text that answers a prompt, token by token with a cache."""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence  # noqa: UP035

import numpy as np

from .probability import softmax

WHOLE = True


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], None]:
    """The prompt as in training, whole or not at all. An item is a `text`, or the whole prompt of a `conversation`."""
    around = bundle.generation["prefix"], bundle.generation["suffix"]
    prompt = item["prompt"] if "prompt" in item else item["text"].strip().join(around)
    found = bundle.tokenizer.encode(prompt, add_special_tokens=False)
    if len(found.ids) >= bundle.max_length:
        raise bundle.error(f"the prompt has {len(found.ids)} tokens; this model takes {bundle.max_length - 1}")
    return [{"input_ids": found.ids}], None


def conversation(bundle: Any, turns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """{"prompt": what the model's chat template makes of messages}, put together from the pieces in edgetune.json."""
    chat = bundle.generation.get("chat")
    if not chat:
        raise bundle.error("this model takes no conversation, since its chat template cannot be rebuilt: give a single text")
    if any(not isinstance(turn, dict) or not isinstance(turn.get("content"), str) for turn in turns):
        raise bundle.error('messages are a list of {"role": ..., "content": ...}')
    system = bundle.generation.get("system")
    if system and turns and turns[0].get("role") != "system":
        turns = [{"role": "system", "content": system}, *turns]
    texts = [turn["content"].strip() if chat["trim"] else turn["content"] for turn in turns]
    roles = [str(turn.get("role")) for turn in turns]
    names = [("first", role) for role in roles[:1]] + [("between", ">".join(pair)) for pair in zip(roles, roles[1:])]  # noqa: B905, RUF007
    names += [("last", role) for role in roles[-1:]]
    if not roles or any(name not in chat[group] for group, name in names):
        raise bundle.error(
            f"messages of {', '.join(roles) or 'nobody'}: after a system message, if any, the user and the assistant take turns; the user is last"
        )
    pieces = [chat[group][name] for group, name in names]
    return {"prompt": "".join(piece + text for piece, text in zip(pieces, [*texts, ""]))}  # noqa: B905


def until(text: str, stops: Sequence[str]) -> str:
    """`text` up to the first of `stops`."""
    return text[: min([place for place in map(text.find, stops) if place >= 0], default=len(text))]


def settled(text: str, stops: Sequence[str]) -> str:
    """`text` without an end that may become one of `stops`."""
    held = (size for stop in stops for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size]))
    return text[: len(text) - max(held, default=0)]


def generate(
    bundle: Any,
    item: Mapping[str, str],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    on_text: Any,
    stop: Sequence[str] = (),
    num_beams: int = 0,
) -> dict[str, Any]:
    """See run.py's `Bundle.generate`."""
    if num_beams > 1:
        raise bundle.error("this model writes without beams")
    [row], _ = read(bundle, item)
    stream = bundle.tokens(row, sampler(temperature, top_p, seed))
    return written(bundle, islice(stream, max_new_tokens or bundle.generation["max_new_tokens"]), stop, on_text)


def written(bundle: Any, stream: Iterable[int], stop: Sequence[str], on_text: Any) -> dict[str, Any]:
    """The tokens of `stream` up to the first stop token or text, as `Bundle.generate` returns them."""
    stops = [text for text in (*bundle.generation.get("stop", ()), *stop) if text]
    ids: list[int] = []
    shown, finished = "", False
    for token in stream:
        finished = token in bundle.generation["stop_ids"]
        if finished:
            break
        ids.append(token)
        text = bundle.tokenizer.decode(ids)
        finished = until(text, stops) != text
        if finished:
            break
        if not text.endswith("\ufffd"):  # half of a character: wait for the rest of it
            sure = settled(text, stops)
            on_text(sure[len(shown) :])
            shown = shown if len(sure) < len(shown) else sure
    text = until(bundle.tokenizer.decode(ids), stops)
    while ids and len(bundle.tokenizer.decode(ids)) > len(text):
        ids.pop()  # what a stop text was spelled with
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
