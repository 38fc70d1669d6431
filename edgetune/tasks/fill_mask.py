"""A word for a gap: masked-language modelling, to go on with an encoder's pre-training on text of one's own (arXiv:1810.04805, section 3.1).

In training 15 % of a text's tokens are drawn anew each time that it is seen (arXiv:1907.11692, section 4.1): 8 of 10 become the mask, one
another token, one stays. Scores are of fixed gaps, the same for every model: 15 % of the tokens, drawn by the text, all of them the mask,
which is what an app asks. Lines that are too long are read in pieces; a score is a row's.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import ModelError
from edgetune.tasks import Encoded, Forward, Scores, batches, inputs, pad, padded

if TYPE_CHECKING:
    import torch

SHARE = 0.15
NOT_LEARNED = -100
EVAL_BATCH = 4  # logits of [4, sequence, vocabulary] stay modest


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str] = ()) -> Encoded:
    """Rows with `text` -> an example for each piece of `max_length` tokens, nothing masked yet: `input_ids`, `item` (index of the row), `free`
    (places that may be masked), `masked` (those that are when it is scored), `mask_id`, `vocabulary` (entries).

    A row without such a token is left out. Raises ModelError when the tokenizer has no mask.
    """
    mask_id = tokenizer.mask_token_id
    if mask_id is None:
        raise ModelError("the tokenizer has no mask token, so there is nothing to fill", mend="choose an encoder such as a BERT")
    if not rows:
        return Encoded([])
    found = tokenizer(
        [row["text"] for row in rows],
        truncation=True,
        max_length=max_length,
        return_overflowing_tokens=True,
        return_special_tokens_mask=True,
    )
    examples: list[dict[str, Any]] = []
    for item, ids, special in zip(found["overflow_to_sample_mapping"], found["input_ids"], found["special_tokens_mask"], strict=True):
        free = [place for place, (token, own) in enumerate(zip(ids, special, strict=True)) if not own and token != mask_id]
        if free:
            masked = random.Random(f"{ids}").sample(free, _count(free))
            examples.append(
                {"input_ids": ids, "item": item, "free": free, "masked": sorted(masked), "mask_id": mask_id, "vocabulary": len(tokenizer)}
            )
    kept = {example["item"] for example in examples}
    return Encoded(examples, left_out=[(i, "no token that could be masked") for i in range(len(rows)) if i not in kept])


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """Gaps drawn by PyTorch's generator, whose state a checkpoint keeps. labels: [b, longest] int64, the token behind a gap, -100 elsewhere."""
    import torch

    ids, labels = [], []
    for example in examples:
        free = example["free"]
        gaps = [free[int(i)] for i in torch.randperm(len(free))[: _count(free)]]
        fates = torch.rand(len(gaps)).tolist()
        others = torch.randint(example["vocabulary"], (len(gaps),)).tolist()
        row = list(example["input_ids"])
        for place, fate, other in zip(gaps, fates, others, strict=True):
            row[place] = example["mask_id"] if fate < 0.8 else other if fate < 0.9 else row[place]
        ids.append({"input_ids": row})
        labels.append(_behind(example, gaps))
    return {**padded(ids, pad_id), "labels": pad(labels, NOT_LEARNED)}


def loss(outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
    """Cross-entropy of the tokens behind the gaps, with label smoothing. `logits` [b, s, vocabulary]."""
    from torch.nn.functional import cross_entropy

    learned = batch["labels"] != NOT_LEARNED
    return cross_entropy(outputs["logits"][learned].float(), batch["labels"][learned], label_smoothing=smoothing)


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = EVAL_BATCH) -> Scores:
    """Per row, in their order: the negative log-likelihood (nats) of the tokens behind its fixed gaps, and how many they are."""
    from scipy.special import logsumexp

    place_of = {item: i for i, item in enumerate(sorted({example["item"] for example in examples}))}
    value, weight = np.zeros(len(place_of)), np.zeros(len(place_of))
    for index in batches(examples, size):
        some = [examples[i] for i in index]
        batch = padded([{"input_ids": _with_gaps(example)} for example in some], pad_id)
        for example, row in zip(some, forward(inputs(batch))["logits"], strict=True):
            said = np.asarray(row[example["masked"]], dtype=np.float64)
            right = [example["input_ids"][place] for place in example["masked"]]
            value[place_of[example["item"]]] += (logsumexp(said, axis=-1) - said[np.arange(len(right)), right]).sum()
            weight[place_of[example["item"]]] += len(right)
    return Scores(value=value, weight=weight)


def metrics(scores: Scores, labels: Sequence[str] = ()) -> dict[str, float]:
    """perplexity, and loss (nats a token): over the gaps of all rows."""
    mean = float(scores.value.sum() / scores.weight.sum())
    return {"perplexity": float(np.exp(mean)), "loss": mean}


def _count(free: Sequence[int]) -> int:
    return max(1, round(SHARE * len(free)))


def _behind(example: Mapping[str, Any], gaps: Sequence[int]) -> list[int]:
    labels = [NOT_LEARNED] * len(example["input_ids"])
    for place in gaps:
        labels[place] = example["input_ids"][place]
    return labels


def _with_gaps(example: Mapping[str, Any]) -> list[int]:
    ids = list(example["input_ids"])
    for place in example["masked"]:
        ids[place] = example["mask_id"]
    return ids
