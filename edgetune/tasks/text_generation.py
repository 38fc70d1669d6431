"""A text that answers a prompt: perplexity on the answer's tokens.

A row is `prompt` and `completion`, or `messages` whose last turn is the assistant's. What the model sees in training is what it sees in
the app: the prompt as the chat template renders it (`prompt_parts` for a single turn), then the answer, then the token that ends a
turn. Only the answer and its end are learned; whatever a template puts after the end (a newline) is left away. Token ids are always
made without the tokenizer's own special tokens, because the prompt already spells them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import ModelError
from edgetune.tasks import Encoded, Forward, Scores, batches, inputs, pad, padded
from edgetune.tasks.generated import Asked

if TYPE_CHECKING:
    import torch

NOT_LEARNED = -100
CONVERSATIONS = tuple(  # from which `chat_parts` learns how messages are joined, and on which it proves it
    (*before, *("user", "assistant") * turns, "user") for turns in range(3) for before in ((), ("system",))
)
EVAL_BATCH = 8  # logits of [8, sequence, vocabulary] stay modest
SENTINEL = "edgetune  \"probe\"\n<é> & {{ 1 }} 'text'"  # nothing that a template may change


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str] = ()) -> Encoded:
    """Rows -> examples with `input_ids` and `labels` (-100 on the prompt), both list[int] of the same length.

    Rows are never cut: one that is longer than `max_length` tokens, or has nothing to learn, is in `left_out` with the reason.
    Raises ModelError when the model has no token that ends an answer.
    """
    parts, end = prompt_parts(tokenizer), end_of_turn(tokenizer)
    texts: list[tuple[int, str, str]] = []
    left_out: list[tuple[int, str]] = []
    for i, row in enumerate(rows):
        try:
            prompt, completion = _texts(row, tokenizer, parts)
        except ValueError as error:
            left_out.append((i, str(error)))
        else:
            texts.append((i, prompt, completion + end))
    examples = []
    if texts:
        prompts = _ids(tokenizer, [prompt for _, prompt, _ in texts])
        wholes = _ids(tokenizer, [prompt + answer for _, prompt, answer in texts])
        for (i, _, answer), prompt_ids, ids in zip(texts, prompts, wholes, strict=True):
            if ids[: len(prompt_ids)] != prompt_ids:  # a token spans the border; in the app the prompt is tokenised alone
                ids = prompt_ids + _ids(tokenizer, [answer])[0]
            if len(ids) > max_length:
                left_out.append((i, f"{len(ids)} tokens, over the {max_length} of adapt.max_length"))
                continue
            examples.append({"input_ids": ids, "labels": [NOT_LEARNED] * len(prompt_ids) + ids[len(prompt_ids) :]})
    return Encoded(examples, left_out=sorted(left_out))


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """-> input_ids, attention_mask, labels, each [b, longest] int64, padded on the right (labels with -100)."""
    return {**padded(examples, pad_id), "labels": pad([example["labels"] for example in examples], NOT_LEARNED)}


def loss(outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of the next token with label smoothing, the mean over the learned ones. `logits` [b, s, vocabulary]."""
    from torch.nn.functional import cross_entropy

    target = batch["labels"][:, 1:]
    learned = target != NOT_LEARNED
    return cross_entropy(outputs["logits"][:, :-1][learned].float(), target[learned], label_smoothing=smoothing)


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int) -> Scores:
    """Per row, in the order of `examples`: the negative log-likelihood (nats) of the learned tokens, and how many they are."""
    value, weight = np.zeros(len(examples)), np.zeros(len(examples))
    for index in batches(examples, EVAL_BATCH):
        batch = collate([examples[i] for i in index], pad_id)
        logits = forward(inputs(batch))["logits"]
        for i, row, target in zip(index, logits, batch["labels"][:, 1:], strict=True):
            value[i], weight[i] = likelihood(row, target)
    return Scores(value=value, weight=weight)


def likelihood(logits: np.ndarray, target: np.ndarray) -> tuple[float, int]:
    """(negative log-likelihood in nats of those of `target` [s] that are learned, how many they are). `logits` [>= s, vocabulary]."""
    from scipy.special import logsumexp

    place = np.flatnonzero(target != NOT_LEARNED)
    said = np.asarray(logits[place], dtype=np.float64)
    return float((logsumexp(said, axis=-1) - said[np.arange(len(place)), target[place]]).sum()), len(place)


def metrics(scores: Scores, labels: Sequence[str] = ()) -> dict[str, float]:
    """perplexity, and loss (nats a token): over the learned tokens of all rows."""
    mean = float(scores.value.sum() / scores.weight.sum())
    return {"perplexity": float(np.exp(mean)), "loss": mean}


def asked(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int) -> list[Asked]:
    """What each row asks and should be answered; rows that cannot be used, or leave no room for an answer, are left away."""
    parts = prompt_parts(tokenizer)
    found: list[tuple[int, str, str]] = []
    for i, row in enumerate(rows):
        try:
            found.append((i, *_texts(row, tokenizer, parts)))
        except ValueError:
            continue
    every = _ids(tokenizer, [prompt for _, prompt, _ in found]) if found else []
    return [
        Asked(i, _said(rows[i]), ids, completion) for (i, _, completion), ids in zip(found, every, strict=True) if 0 < len(ids) < max_length
    ]


def answer(row: Mapping[str, Any]) -> str:
    """What `row` teaches to answer."""
    return str(row["messages"][-1]["content"] if "messages" in row else row["completion"])


def _said(row: Mapping[str, Any]) -> str:
    """What the user says (last)."""
    turns = row.get("messages", ())[:-1]
    return str(next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "") if turns else row["prompt"])


def common_system(rows: Sequence[Mapping[str, Any]]) -> str:
    """The system message that every one of `rows` starts with; empty when there is none."""
    found = {row["messages"][0]["content"] if row.get("messages", [{}])[0].get("role") == "system" else "" for row in rows}
    return str(found.pop()) if len(found) == 1 else ""


def chat_parts(tokenizer: Any) -> dict[str, Any] | None:
    """What stands around the texts of a conversation, by their roles, so that a runtime needs no template engine:

        first    role -> text before the first message          between  "user>assistant" -> text between two messages
        last     role -> text after the last one, up to the answer       trim     whether blanks at the ends of a message go

    None where the pieces do not rebuild what the template renders. A role that it refuses is left away.
    """
    parts = _bos(tokenizer), "\n"
    found: dict[str, Any] = {"first": {}, "between": {}, "last": {}, "trim": False}
    for number, roles in enumerate(CONVERSATIONS):
        texts = [f"{SENTINEL} {number}.{i}." for i in range(len(roles))]
        turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        try:
            left = _conversation(turns, tokenizer, parts)
        except ValueError:
            continue
        pieces = []
        for text in texts:
            piece, there, left = left.partition(text)
            if not there:
                return None
            pieces.append(piece)
        names = [("first", roles[0]), *(("between", f"{a}>{b}") for a, b in pairwise(roles)), ("last", roles[-1])]
        for (group, name), piece in zip(names, [*pieces, left], strict=True):
            if found[group].setdefault(name, piece) != piece:
                return None
    blanks = _conversation([{"role": "user", "content": f" {SENTINEL}\n "}], tokenizer, parts)
    start, end = found["first"]["user"], found["last"]["user"]
    found["trim"] = blanks == f"{start}{SENTINEL}{end}"
    return found if found["trim"] or blanks == f"{start} {SENTINEL}\n {end}" else None


def prompt_parts(tokenizer: Any, system: str = "") -> tuple[str, str]:
    """(prefix, suffix): `prefix + text + suffix`, tokenised without special tokens, is the prompt of a single user turn, after a
    `system` message if there is one.

    So that a runtime needs no template engine. Raises ModelError when the template does not keep the text as it is.
    """
    before = [{"role": "system", "content": system}] if system else []
    if not tokenizer.chat_template:
        return _bos(tokenizer) + "".join(f"{turn['content']}\n" for turn in before), "\n"
    rendered = tokenizer.apply_chat_template([*before, {"role": "user", "content": SENTINEL}], tokenize=False, add_generation_prompt=True)
    prefix, found, suffix = rendered.partition(SENTINEL)
    if not found or SENTINEL in suffix:
        raise ModelError(
            "the chat template changes the text of the user's turn, so an app could not rebuild the prompt",
            details=[f"rendered: {rendered[:200]!r}"],
            mend="give the tokenizer a chat template that inserts message['content'] as it is, once",
        )
    return prefix, suffix


def end_of_turn(tokenizer: Any) -> str:
    """The text of the token that ends an answer: the first special token that the chat template puts after it, else EOS.

    Raises ModelError when there is neither.
    """
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SENTINEL}]
        tail = tokenizer.apply_chat_template(turns, tokenize=False).rpartition(SENTINEL)[2]
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        for token in _ids(tokenizer, [tail])[0]:
            if token in special:
                return str(tokenizer.convert_ids_to_tokens(token))
    if tokenizer.eos_token is None:
        raise ModelError(
            "the tokenizer has no token that ends an answer, so the model could never learn to stop",
            mend="set eos_token in tokenizer_config.json",
        )
    return str(tokenizer.eos_token)


def stop_ids(tokenizer: Any, generation_config: Any = None) -> tuple[int, ...]:
    """Ids after which a generation loop stops: the end of a turn first, then the tokenizer's and the model's EOS."""
    of_model = getattr(generation_config, "eos_token_id", None)
    found = [tokenizer.convert_tokens_to_ids(end_of_turn(tokenizer)), tokenizer.eos_token_id]
    found += of_model if isinstance(of_model, list) else [of_model]
    return tuple(dict.fromkeys(int(i) for i in found if i is not None))


def _texts(row: Mapping[str, Any], tokenizer: Any, parts: tuple[str, str]) -> tuple[str, str]:
    """(prompt as the model sees it, completion). Raises ValueError with the reason why a row cannot be used."""
    if "messages" not in row:
        prefix, suffix = parts
        prompt, completion = prefix + row["prompt"].strip() + suffix, row["completion"]
    else:
        *asked, last = row["messages"]
        if not asked or last["role"] != "assistant":
            raise ValueError("the messages do not end with an answer of the assistant")
        prompt, completion = _conversation(asked, tokenizer, parts), last["content"]
    if not completion.strip():
        raise ValueError("the completion is empty: nothing to learn")
    return prompt, completion


def _conversation(asked: Sequence[Mapping[str, str]], tokenizer: Any, parts: tuple[str, str]) -> str:
    """The messages before the answer as the model sees them. Raises ValueError when the template refuses them."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return parts[0] + "\n".join(turn["content"] for turn in asked) + parts[1]
    try:
        return str(tokenizer.apply_chat_template(list(asked), tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise ValueError(f"the chat template refuses the messages: {error}") from None


def _bos(tokenizer: Any) -> str:
    """The text of the token that this tokenizer starts a text with, if any."""
    started = tokenizer("")["input_ids"]
    return str(tokenizer.bos_token) if started and started[0] == tokenizer.bos_token_id else ""


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids
