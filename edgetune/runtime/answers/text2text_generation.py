"""A text made of another one: the encoder reads it once, the decoder writes token by token, greedily or with beams.

As transformers' `generate` does both (generation/utils.py of 5.x), token for token.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Callable, Iterator, Mapping, Sequence  # noqa: UP035

import numpy as np

from .text_generation import sampler, written

NEVER = np.float32(-1e9)  # the score of what cannot be


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
    row, found = bundle.tokenized(item)
    return [row], {"cut": bool(found.overflowing)}


def outputs(bundle: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`logits` [n, t, vocabulary] after each of `decoder_input_ids` [n, t], which come one by one as when it writes; without them, of the
    first step."""
    given = dict(feeds)
    ids = given.pop("decoder_input_ids", np.full((len(given["input_ids"]), 1), bundle.generation["decoder_start"], dtype=np.int64))
    past, logits = started(bundle, given), []
    for at in range(ids.shape[1]):
        said, past = step(bundle, ids[:, at : at + 1], past)
        logits.append(said)
    return {"logits": np.stack(logits, axis=1)}


def started(bundle: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the decoder reads of a text at every step: by input, its keys and values and which of its tokens count."""
    _, text = bundle.forward(feeds)
    return {**text, "encoder_attention_mask": feeds["attention_mask"]}


def step(bundle: Any, ids: np.ndarray, past: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """[n, 1] int64 -> (logits [n, vocabulary] of the next token, the cache with these)."""
    found, cache = bundle.forward({"input_ids": ids}, past, decoder=True)
    return found["logits"][:, -1], {**past, **cache}


def tokens(bundle: Any, row: Mapping[str, Sequence[int]], choose: Callable[[np.ndarray], Any], most: int = 0) -> Iterator[int]:
    """See run.py's `Bundle.tokens`; `most`: the last one of so many may be a forced end."""
    ids, past = [bundle.generation["decoder_start"]], started(bundle, alone(bundle, row))
    for _ in range(bundle.max_length):
        said, past = step(bundle, np.array([ids[-1:]], dtype=np.int64), past)
        token = int(choose(allowed(bundle.generation, said, [ids], most)[0]))
        yield token
        ids.append(token)


def alone(bundle: Any, row: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    if not row["input_ids"]:
        raise bundle.error("nothing to read: the text has no tokens")
    ids = np.array([row["input_ids"]], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


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
    """See run.py's `Bundle.generate`. `num_beams` 0: as edgetune.json says, or 1 where tokens are drawn; with several the text comes at once."""
    asked = bundle.generation
    most = min(max_new_tokens or asked["max_new_tokens"], bundle.max_length)
    beams = num_beams or (1 if temperature > 0 else asked["num_beams"])
    if beams > 1 and temperature > 0:
        raise bundle.error("beams take the likeliest tokens, a temperature draws them: give one of the two")
    [row], kept = read(bundle, item)
    stream = (
        beam_search(bundle, row, most, beams) if beams > 1 else islice(tokens(bundle, row, sampler(temperature, top_p, seed), most), most)
    )
    return {**written(bundle, stream, stop, on_text), **kept}


def allowed(asked: Mapping[str, Any], scores: np.ndarray, ids: Sequence[Sequence[int]], most: int) -> np.ndarray:
    """`scores` [n, vocabulary] with -inf for the tokens that may not follow `ids` [n, so far], the start included; `most`: new tokens in all.

    In the order of transformers' logits processors.
    """
    scores, length, stops = scores.astype(np.float32, copy=True), len(ids[0]), list(asked["stop_ids"])
    size = asked["no_repeat_ngram_size"]
    if size and length + 1 >= size:
        for line, before in zip(scores, ids):  # noqa: B905  (3.9)
            last = tuple(before[length - size + 1 :])
            line[[before[i + size - 1] for i in range(length - size + 1) if tuple(before[i : i + size - 1]) == last]] = -np.inf
    if length < asked["min_length"] or length - 1 < asked["min_new_tokens"]:
        scores[:, stops] = -np.inf
    if length == 1 and asked["forced_bos_token_id"] is not None:
        scores = only(scores, [asked["forced_bos_token_id"]])
    if length == most and asked["forced_eos_token_ids"]:
        scores = only(scores, asked["forced_eos_token_ids"])
    scores[:, asked["never"]] = -np.inf
    return scores


def only(scores: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    found = np.full_like(scores, -np.inf)
    found[:, ids] = 0
    return found


def beam_search(bundle: Any, row: Mapping[str, Sequence[int]], most: int, beams: int) -> list[int]:
    """The tokens of the best of `beams` hypotheses of at most `most` tokens, by summed log-probability / length ** length_penalty.

    Each step keeps the (stops + 1) x `beams` best continuations, so that enough stay open when the others end; only those among the first
    `beams` may end. `early_stopping`: True ends when `beams` have ended; False when the best open one could not beat the worst of them at
    its present length, "never" at its greatest.
    """
    asked = bundle.generation
    penalty, early, stops = float(asked["length_penalty"]), asked["early_stopping"], list(asked["stop_ids"])
    past = {name: repeated(value, beams) for name, value in started(bundle, alone(bundle, row)).items()}
    open_ids = [[asked["decoder_start"]] for _ in range(beams)]
    open_scores = np.array([0] + [NEVER] * (beams - 1), dtype=np.float32)
    done: list[tuple[np.float32, bool, list[int]]] = [(NEVER, False, []) for _ in range(beams)]
    for length in range(1, most + 1):
        said, past = step(bundle, np.array([ids[-1:] for ids in open_ids], dtype=np.int64), past)
        scores = allowed(asked, log_softmax(said), open_ids, most) + open_scores[:, None]
        best = largest(scores.ravel(), max(2, 1 + len(stops)) * beams)
        owners, chosen = np.divmod(best, scores.shape[1])
        values = scores.ravel()[best]
        ids = [[*open_ids[owner], int(token)] for owner, token in zip(owners, chosen)]  # noqa: B905
        ended = np.isin(chosen, stops) | (length == most)
        ends = ended & (np.arange(len(best)) < beams)
        done += zip(np.where(ends, values / np.float32(length**penalty), NEVER), ends, ids)  # noqa: B905
        done = [done[i] for i in largest(np.array([score for score, _, _ in done], dtype=np.float32), beams)]
        values = values + np.where(ended, NEVER, np.float32(0))
        going = largest(values, beams)
        open_ids, open_scores = [ids[i] for i in going], values[going]
        past = {name: value.numpy()[owners[going]] if ".decoder." in name else value for name, value in past.items()}
        hope = open_scores[0] / np.float32((most if early == "never" and penalty > 0 else length) ** penalty)
        worst = min(score for score, _, _ in done)
        full = all(end for _, end, _ in done)
        if (early is True and full) or not any(hope > (worst if end else NEVER) for _, end, _ in done):
            break
    return done[0][2][1:]


def repeated(value: Any, count: int) -> Any:
    """[1, ...] -> [count, ...] of an array, or of a value of onnxruntime."""
    if isinstance(value, np.ndarray):
        return np.repeat(value, count, axis=0)
    return type(value).ortvalue_from_numpy(np.repeat(value.numpy(), count, axis=0))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def largest(values: np.ndarray, count: int) -> np.ndarray:
    """The indices of the `count` largest, the largest first; of equals the first."""
    some = np.argpartition(-values, count)[:count] if count < len(values) else np.arange(len(values))
    return some[np.lexsort((some, -values[some]))]


def line(found: Mapping[str, Any]) -> str:
    return str(found["text"])
