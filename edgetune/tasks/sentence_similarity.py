"""Texts as vectors whose cosine says how alike they are (a bi-encoder): each text is read alone, so an app can keep the vectors of its own.

A row is a pair of texts with a score. In a batch its two texts are neighbours: rows 2i and 2i + 1 of `input_ids`. The score's unit
does not matter, only its order: both the loss and the metric compare pairs with pairs.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.tasks import Encoded, Forward, Scores, batches, inputs, padded, tokens
from edgetune.tasks.correlation import pearson, spearman

if TYPE_CHECKING:
    import torch

SCALE = 20.0  # of the cosines in the loss
ALIKE = 0.8  # of the way from the lowest score to the highest: from here on a pair counts as one that a search should find
PLACES = (1, 10)  # of recall
CHUNK = 256  # texts compared with all others at a time


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """Rows with `text` (and `text_pair` and `score`) -> examples with `input_ids`, `pair` (ids of the second text) and `score`."""
    first, cut = tokens(tokenizer, [row["text"] for row in rows], max_length=max_length)
    if not rows or "text_pair" not in rows[0]:
        return Encoded(first, cut)
    second, also_cut = tokens(tokenizer, [row["text_pair"] for row in rows], max_length=max_length)
    pairs = zip(first, second, rows, strict=True)
    return Encoded([{**a, "pair": b["input_ids"], "score": row.get("score", float("nan"))} for a, b, row in pairs], cut + also_cut)


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """`input_ids` [2 b, s], the two texts of a row one after the other; `labels` [b] float32."""
    every = [{"input_ids": ids} for example in examples for ids in (example["input_ids"], example["pair"])]
    return {**padded(every, pad_id), "labels": np.array([example["score"] for example in examples], dtype=np.float32)}


def loss(outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
    """CoSENT: log(1 + sum of exp(20 (cos_i - cos_j)) over all i, j of the batch where score_i < score_j).

    Su Jianlin, https://kexue.fm/archives/8847; `CoSENTLoss` of sentence-transformers. `sentence_embedding` [2 b, hidden] of length 1.
    """
    import torch

    vectors, wanted = outputs["sentence_embedding"].float(), batch["labels"]
    cosine = SCALE * (vectors[0::2] * vectors[1::2]).sum(-1)
    wrong = (cosine[:, None] - cosine[None, :])[wanted[:, None] < wanted[None, :]]
    return torch.cat([cosine.new_zeros(1), wrong]).logsumexp(0)


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = 64) -> Scores:
    """value: the cosine of a pair, weight 1; logits [2 n, hidden]: both vectors, `lines` of 2 a row; extra [n, 3]: the score that the pair
    should have, and a number for each of its texts by which the same text is known again."""
    every = [{"input_ids": ids} for example in examples for ids in (example["input_ids"], example["pair"])]
    vectors: np.ndarray | None = None
    for index in batches(every, size):
        answer = np.asarray(forward(inputs(padded([every[i] for i in index], pad_id)))["sentence_embedding"], dtype=np.float32)
        if vectors is None:
            vectors = np.empty((len(every), answer.shape[-1]), dtype=np.float32)
        vectors[index] = answer
    assert vectors is not None, "no rows to score"
    said = (vectors[0::2] * vectors[1::2]).sum(-1)
    return compared(said.astype(np.float64), examples, logits=vectors, lines=np.full(len(examples), 2, dtype=np.int64))


def compared(said: np.ndarray, examples: Sequence[Mapping[str, Any]], **vectors: np.ndarray) -> Scores:
    """See `score`; `said` [n]: the similarity of each pair. Without `vectors` there is no recall."""
    every = [ids for example in examples for ids in (example["input_ids"], example["pair"])]
    known = np.array([zlib.crc32(np.array(ids).tobytes()) for ids in every], dtype=np.float64).reshape(-1, 2)
    wanted = np.array([example["score"] for example in examples], dtype=np.float64)
    return Scores(value=said, weight=np.ones(len(examples)), extra=np.column_stack([wanted, known]), **vectors)


def quality(scores: Scores) -> float:
    assert scores.extra is not None
    return spearman(scores.value, scores.extra[:, 0])


def metrics(scores: Scores, labels: Sequence[str]) -> dict[str, float]:
    """spearman and pearson of cosine and score, recall_at_1 and recall_at_10 (see `_recall`), correlation_distance (1 - pearson)."""
    assert scores.extra is not None
    near = pearson(scores.value, scores.extra[:, 0])
    found = {} if scores.logits is None else _recall(scores)
    return {"spearman": quality(scores), "pearson": near, **found, "correlation_distance": 1 - near}


def _recall(scores: Scores) -> dict[str, float]:
    """Of the pairs that are alike, how many second texts are among the nearest of all second texts to the first (itself left out)."""
    assert scores.extra is not None and scores.logits is not None
    wanted, first, second = scores.extra.T
    alike = np.flatnonzero(wanted >= wanted.min() + ALIKE * np.ptp(wanted))
    candidates, place = np.unique(second, return_index=True)
    before = np.empty(len(alike), dtype=np.int64)
    for start in range(0, len(alike), CHUNK):
        some = alike[start : start + CHUNK]
        nearness = scores.logits[0::2][some] @ scores.logits[1::2][place].T
        own = candidates == second[some, None]
        nearness[(candidates == first[some, None]) & ~own] = -np.inf
        before[start : start + CHUNK] = (nearness > nearness[own][:, None]).sum(axis=1)
    return {f"recall_at_{k}": float((before < k).mean()) for k in PLACES}
