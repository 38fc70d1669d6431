"""What each word of a text adds to an answer of a PyTorch model: integrated gradients (Sundararajan et al., arXiv:1703.01365), by captum.

The path goes from a text of padding to the text itself, in the space of the word embeddings; special tokens and markers stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgetune import tasks
from edgetune.errors import GateError, MissingExtra, RequestError
from edgetune.methods.model import load_merged, tokenizer_in
from edgetune.tasks import attribution

STEPS = (32, 128, 512)  # points of the path, until the sum is right
COMPLETE = 0.01  # by how much of max(1, the difference) the attributions may miss it
AT_ONCE = 32  # points in a pass


class Explainer:
    """The merged model in `folder`, which answers `labels` of `task`."""

    def __init__(self, folder: Path, task: str, labels: Sequence[str], max_length: int) -> None:
        self.task, self.kind, self.known = tasks.get(task), attribution.kind(task), attribution.names(task, labels)
        self.max_length = max_length
        try:
            from captum.attr import LayerIntegratedGradients
        except ImportError:
            raise MissingExtra(
                "the package captum is not installed", mend="pip install 'edgetune[explain]'; or explain a bundle, which needs no more"
            ) from None
        self.model, self.tokenizer = load_merged(folder, task), tokenizer_in(folder)
        self._gradients = LayerIntegratedGradients(self._score, self.model.get_input_embeddings())

    def explain(self, item: Mapping[str, str], label: str | None = None) -> attribution.Explanation:
        """The score of `label` (none: the likeliest), and what each word of `item` adds to that of padding.

        Raises RequestError, and GateError when the attributions do not add up to the difference of the two scores ("completeness").
        """
        words = attribution.words(item, self.task.markers)
        index = attribution.place(label, self.known)
        for marker in self.task.markers:
            if any(text.count(marker) != 1 for text in item.values()):
                raise RequestError(f"mark the two entities, each once: {marker} is not there once")
        texts = list(item.values())
        found = self.tokenizer(*texts, truncation=True, max_length=self.max_length, return_tensors="pt", return_offsets_mapping=True)
        spans, fields = found["offset_mapping"][0].tolist(), found.encodings[0].sequence_ids
        read = ["input_ids", "attention_mask", *(["token_type_ids"] if len(texts) > 1 and "token_type_ids" in found else [])]
        given = {name: found[name] for name in read}
        with torch.no_grad():
            logits = self.model(**given).logits
        index = int(logits[0].argmax()) if index is None else index
        markers = {self.tokenizer.convert_tokens_to_ids(marker) for marker in self.task.markers}
        kept = torch.tensor([field is None or int(token) in markers for field, token in zip(fields, given["input_ids"][0], strict=True)])
        empty = given["input_ids"].masked_fill(~kept, self.tokenizer.pad_token_id)
        of_tokens, score, baseline, gap = self._attributed(given, empty, index)
        each, elsewhere = _of_words(words, of_tokens, spans, [field if field is None else list(item)[field] for field in fields])
        return attribution.Explanation(
            self.known[index] if self.known else None,
            score,
            "integrated gradients",
            tuple(replace(word, attribution=value) for word, value in zip(words, each, strict=True)),
            self._longer(texts),
            baseline,
            elsewhere,
            gap,
        )

    def _score(self, ids: torch.Tensor, index: int, *others: torch.Tensor) -> torch.Tensor:
        names = ("attention_mask", "token_type_ids")[: len(others)]
        logits = self.model(input_ids=ids, **dict(zip(names, others, strict=True))).logits
        found: torch.Tensor = attribution.score(logits, index, self.kind)
        return found

    def _attributed(self, given: Mapping[str, Any], empty: torch.Tensor, index: int) -> tuple[list[float], float, float, float]:
        """(what each token adds, the score, that of `empty`, by how much the sum misses their difference)."""
        ids, *others = given.values()
        with torch.no_grad():
            score, baseline = (float(self._score(text, index, *others)) for text in (ids, empty))
        allowed = COMPLETE * max(1.0, abs(score - baseline))
        for steps in STEPS:
            added = self._gradients.attribute(
                ids, baselines=empty, additional_forward_args=(index, *others), n_steps=steps, internal_batch_size=AT_ONCE
            )
            of_tokens = added.sum(-1)[0].tolist()
            gap = score - baseline - sum(of_tokens)
            if abs(gap) <= allowed:
                return of_tokens, score, baseline, gap
        raise GateError(
            f"the attributions miss the difference of the scores by {gap:.2g} (allowed {allowed:.2g}) at {STEPS[-1]} steps",
            mend="explain a bundle of the run: its words are left out one by one, which is exact",
        )

    def _longer(self, texts: Sequence[str]) -> bool:
        return len(self.tokenizer(*texts, truncation=False, verbose=False)["input_ids"]) > self.max_length


def _of_words(
    words: Sequence[attribution.Word], of_tokens: Sequence[float], spans: Sequence[Sequence[int]], fields: Sequence[str | None]
) -> tuple[list[float], float]:
    """(the sum over the tokens of each word, the sum over tokens that are no word's). A token of two words belongs to the first."""
    each, elsewhere = [0.0] * len(words), 0.0
    for value, (start, end), field in zip(of_tokens, spans, fields, strict=True):
        places = (i for i, word in enumerate(words) if word.field == field and word.start < end and start < word.end)
        place = next(places, None)
        if place is None:
            elsewhere += value
        else:
            each[place] += value
    return each, elsewhere
