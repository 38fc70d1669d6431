"""For each word of some texts those that a model's embedding puts next to it: company -> firm, corporation, firms.

What stands in the place of words when texts are altered for distillation, as the neighbours in GloVe do in TinyBERT (arXiv:1909.10351,
algorithm 1); the model's own embedding needs no other file.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from edgetune.data.noise import NEAR_WORD

MOST = 20_000  # words, the most frequent: between all of them distances are taken
NEAREST = 6
ALIKE = 0.35  # cosine, after the mean is taken away
CHUNK = 1024


@torch.no_grad()
def find(texts: Iterable[str], tokenizer: Any, embedding: torch.Tensor) -> Mapping[str, tuple[str, ...]]:
    """Word in small letters -> at most six others of `texts`, the nearest first; a word that none is near is left out.

    `embedding` [entries, hidden] float: that of `tokenizer`'s entries. A word of several pieces, as they are after a blank, is the mean of them;
    one that cannot be spelt is near to none.
    """
    count = Counter(word.lower() for text in texts for word in NEAR_WORD.findall(text))
    words = sorted(word for word, _ in count.most_common(MOST))
    pieces = tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"] if words else []
    known = [(word, ids) for word, ids in zip(words, pieces, strict=True) if ids and tokenizer.unk_token_id not in ids]
    if len(known) < 2:
        return {}
    words = [word for word, _ in known]
    lengths = [len(ids) for _, ids in known]
    parts = embedding[torch.tensor(list(itertools.chain.from_iterable(ids for _, ids in known)))].float().split(lengths)
    places = torch.stack([part.mean(0) for part in parts])
    places = torch.nn.functional.normalize(places - places.mean(0), dim=1)
    found: dict[str, tuple[str, ...]] = {}
    for at in range(0, len(words), CHUNK):
        likeness = places[at : at + CHUNK] @ places.T
        likeness[torch.arange(len(likeness)), torch.arange(at, at + len(likeness))] = -1.0  # itself
        best = likeness.topk(min(NEAREST, len(words) - 1), dim=1)
        for word, values, others in zip(words[at : at + CHUNK], best.values.tolist(), best.indices.tolist(), strict=True):
            near = tuple(words[i] for value, i in zip(values, others, strict=True) if value > ALIKE)
            if near:
                found[word] = near
    return found
