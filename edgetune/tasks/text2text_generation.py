"""A text made of another one (translation, summary) by an encoder-decoder model: perplexity on the tokens of the target.

A row is `source` and `target`. The encoder reads the source as the model's tokenizer spells it, cut to its length; the decoder learns the
target and the token that ends it, each token from those before (teacher forcing). What it starts from is the model's own to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import ModelError
from edgetune.tasks import Encoded, Forward, Scores, batches, inputs, pad, padded, text_generation
from edgetune.tasks.generated import Asked
from edgetune.tasks.text_generation import EVAL_BATCH, NOT_LEARNED, metrics, stop_ids

if TYPE_CHECKING:
    import torch

__all__ = ["answer", "asked", "collate", "encode", "loss", "metrics", "score", "search_settings", "start_id", "stop_ids"]

MOST_NEW = 128  # tokens, where the model does not say
SEARCH = {  # of transformers' GenerationConfig, with what holds where it says nothing
    **{"num_beams": 1, "length_penalty": 1.0, "early_stopping": False},
    **{"min_length": 0, "min_new_tokens": 0, "no_repeat_ngram_size": 0},
}
NOT_DONE = {
    **{"repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0, "diversity_penalty": 0.0, "num_beam_groups": 1, "guidance_scale": 1},
    **{"encoder_no_repeat_ngram_size": 0, "exponential_decay_length_penalty": None, "sequence_bias": None, "begin_suppress_tokens": None},
}


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str] = ()) -> Encoded:
    """Rows -> examples with `input_ids`, `labels` (the target and its end) and `decoder_input_ids` (the same, one later): list[int].

    A source over `max_length` tokens is cut; a row whose target is, or has no tokens, is in `left_out` with the reason. Raises ModelError
    when the model has no token that ends an answer, or none to start from.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "the tokenizer has no token that ends an answer, so the model could never learn to stop",
            mend="set eos_token in tokenizer_config.json",
        )
    if not rows:
        return Encoded([])
    start = start_id(tokenizer)
    sources, targets = ([row[column] for row in rows] for column in ("source", "target"))
    whole = tokenizer(sources, truncation=False, verbose=False)["input_ids"]
    kept = tokenizer(sources, truncation=True, max_length=max_length)["input_ids"]
    learned = tokenizer(text_target=targets, truncation=False, verbose=False)["input_ids"]
    examples, left_out, cut = [], [], 0
    for i, (ids, target) in enumerate(zip(kept, learned, strict=True)):
        target = target if target[-1:] == [tokenizer.eos_token_id] else [*target, tokenizer.eos_token_id]
        if len(target) > max_length:
            left_out.append((i, f"{len(target)} tokens of target, over the {max_length} of adapt.max_length"))
            continue
        cut += len(whole[i]) > len(ids)
        examples.append({"input_ids": ids, "labels": target, "decoder_input_ids": [start, *target[:-1]]})
    return Encoded(examples, cut=cut, left_out=left_out)


def asked(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int) -> list[Asked]:
    """What each row asks and should be answered; a long source is cut, as in training."""
    if not rows:
        return []
    every = tokenizer([row["source"] for row in rows], truncation=True, max_length=max_length)["input_ids"]
    return [Asked(i, row["source"], ids, row["target"]) for i, (row, ids) in enumerate(zip(rows, every, strict=True))]


def answer(row: Mapping[str, Any]) -> str:
    """What `row` teaches to answer."""
    return str(row["target"])


def start_id(tokenizer: Any) -> int:
    """The token that the decoder starts from: the configuration says it that lies beside the tokenizer. Raises ModelError."""
    from transformers import AutoConfig, GenerationConfig

    folder = Path(tokenizer.name_or_path)
    found = None
    if (folder / "generation_config.json").is_file():
        found = GenerationConfig.from_pretrained(folder).decoder_start_token_id
    if found is None and (folder / "config.json").is_file():
        config = AutoConfig.from_pretrained(folder)
        found = next(
            (value for name in ("decoder_start_token_id", "bos_token_id") if (value := getattr(config, name, None)) is not None), None
        )
    if found is None:
        raise ModelError(
            f"{folder} does not say which token the decoder starts from",
            mend="set decoder_start_token_id in its config.json",
        )
    return int(found)


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """-> input_ids, attention_mask [b, longest source], decoder_input_ids, labels (-100 where nothing is) [b, longest target], int64."""
    ahead = pad([example["decoder_input_ids"] for example in examples], pad_id)
    return {**padded(examples, pad_id), "decoder_input_ids": ahead, "labels": pad([one["labels"] for one in examples], NOT_LEARNED)}


def loss(outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of the target's tokens with label smoothing, the mean over them. `logits` [b, t, vocabulary]."""
    from torch.nn.functional import cross_entropy

    learned = batch["labels"] != NOT_LEARNED
    return cross_entropy(outputs["logits"][learned].float(), batch["labels"][learned], label_smoothing=smoothing)


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = EVAL_BATCH) -> Scores:
    """Per row, in the order of `examples`: the negative log-likelihood (nats) of the target's tokens, and how many they are."""
    value, weight = np.zeros(len(examples)), np.zeros(len(examples))
    for index in batches(examples, size):
        batch = collate([examples[i] for i in index], pad_id)
        for i, logits, target in zip(index, forward(inputs(batch))["logits"], batch["labels"], strict=True):
            value[i], weight[i] = text_generation.likelihood(logits, target)
    return Scores(value=value, weight=weight)


def search_settings(tokenizer: Any, config: Any, otherwise: int = MOST_NEW) -> tuple[dict[str, Any], list[str]]:
    """(how the model's answers are searched for, as run.py reads it; what else its `GenerationConfig` asks for, which run.py does not do).

    `otherwise`: new tokens at most, where the model does not say.
    """

    def said(name: str, neutral: Any) -> Any:
        value = getattr(config, name, None)
        return neutral if value is None else value

    forced = said("forced_eos_token_id", [])
    bad = said("bad_words_ids", [])
    most = config.max_new_tokens or (config.max_length and config.max_length - 1) or otherwise
    settings = {
        **{"decoder_start": start_id(tokenizer), "stop_ids": list(stop_ids(tokenizer, config)), "max_new_tokens": most},
        **{name: said(name, neutral) for name, neutral in SEARCH.items()},
        **{
            "forced_bos_token_id": said("forced_bos_token_id", None),
            "forced_eos_token_ids": forced if isinstance(forced, list) else [forced],
        },
        "never": [*said("suppress_tokens", []), *(word[0] for word in bad if len(word) == 1)],
    }
    ignored = [name for name, neutral in NOT_DONE.items() if said(name, neutral) != neutral]
    return settings, ignored + ["bad_words_ids of several tokens"] * any(len(word) > 1 for word in bad)
