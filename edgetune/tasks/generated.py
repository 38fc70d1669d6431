"""Texts that a model wrote, beside those that it should have: exact match, chrF, BLEU and ROUGE, and what to beat without a model.

Every score is a fraction (sacrebleu's 0 to 100, divided by 100). chrF (Popovic 2015, W15-3049: chrF2) and BLEU (Papineni et al. 2002,
P02-1040) are of all rows at once, by sacrebleu with its defaults; BLEU's words are characters where most references are written in scripts
without blanks. ROUGE-1, -2 and -L (Lin 2004, W04-1013) are the mean F1 of the rows, by rouge-score without a stemmer; its words are a to z
and digits only, so here they are letters and digits of every script, which is the same for plain English.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Asked:
    """A row that a model is to answer: its index, what a user would give as text, the prompt's ids, and the answer that it has."""

    row: int
    text: str
    ids: list[int]
    reference: str


ROUGE = ("rouge1", "rouge2", "rougeL")
METRICS = ("exact_match", "chrf", "bleu", *ROUGE)
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # kana and ideographs
WORD = re.compile(rf"[{ALONE}]|[^\W_{ALONE}]+")
ENOUGH = 2000  # answers to learn from whose length is looked at
MARGIN = 8  # tokens over the 99th percentile of the answers to learn from
EVAL_BATCH = 8  # prompts at a time


class Words:
    """The words of ROUGE, as rouge-score takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())


def measure(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """METRICS of `texts`, each against the reference at its place. In exact match runs of blanks are one."""
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    assert texts and len(texts) == len(references), "as many texts as references"
    pairs = list(zip(texts, references, strict=True))
    scorer = RougeScorer(list(ROUGE), tokenizer=Words())
    rouge = [scorer.score(reference, text) for text, reference in pairs]
    unspaced = sum(bool(re.search(f"[{ALONE}]", reference)) for reference in references) > len(references) / 2
    return {
        "exact_match": float(np.mean([" ".join(text.split()) == " ".join(reference.split()) for text, reference in pairs])),
        "chrf": CHRF().corpus_score(texts, [references]).score / 100,
        "bleu": BLEU(tokenize="char" if unspaced else "13a").corpus_score(texts, [references]).score / 100,
        **{name: float(np.mean([one[name].fmeasure for one in rouge])) for name in ROUGE},
    }


def how() -> str:
    """Which programs `measure`d."""
    from importlib.metadata import version

    return (
        f"fractions; chrF2 and BLEU of sacrebleu {version('sacrebleu')}, ROUGE F1 of rouge-score {version('rouge-score')}; greedy answers"
    )


def chosen(count: int, most: int, seed: int) -> list[int]:
    """At most `most` of `count` rows, drawn with `seed`, in their order."""
    return sorted(random.Random(seed).sample(range(count), most)) if most < count else list(range(count))


def lead(texts: Sequence[str], answers: Sequence[str]) -> list[str]:
    """What to beat: the first words of each text, as many as the median of the `answers` to learn from has."""
    count = max(1, round(float(np.median([len(answer.split()) for answer in answers]))))
    return [" ".join(text.split()[:count]) for text in texts]


def commonest(texts: Sequence[str], answers: Sequence[str]) -> list[str]:
    """What to beat: the same answer to all, the one that is most often learned."""
    return [Counter(answers).most_common(1)[0][0]] * len(texts)


BASELINES: Mapping[str, Callable[[Sequence[str], Sequence[str]], list[str]]] = {"lead": lead, "commonest": commonest}


def longest(answers: Sequence[str], tokenizer: Any, seed: int = 0) -> int:
    """Tokens that an answer gets at most: the 99th percentile of those to learn from (ENOUGH of them), and MARGIN."""
    some = [answers[i] for i in chosen(len(answers), ENOUGH, seed)]
    lengths = [len(ids) for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]]
    return math.ceil(np.percentile(lengths, 99)) + MARGIN


def greedy(
    model: torch.nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    pad_id: int,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    max_length: int = 0,
    done: Callable[[int], Any] = lambda count: None,
) -> list[list[int]]:
    """The likeliest tokens after each of `prompts` (ids), by transformers' `generate`, without the stop token; `done(rows)` tells progress.

    `max_length`: tokens of prompt and answer together, where they share the model (0: any). Prompts of like length go together, those that
    leave too little room alone. They are padded on the left, or on the right where an encoder reads them.
    """
    import torch

    config: Any = model.config
    if config.is_encoder_decoder:
        max_length = 0  # the answer has a length of its own
    device = next(model.parameters()).device
    plain = {
        "do_sample": False,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0,
        "min_length": 0,
        "min_new_tokens": None,
    }
    found: dict[int, list[int]] = {}
    for index in _together(prompts, (max_length or math.inf) - max_new_tokens):
        width = max(len(prompts[i]) for i in index)
        room = min(max_new_tokens, (max_length or math.inf) - width)
        ids = torch.full((len(index), width), pad_id)
        mask = torch.zeros_like(ids)
        for line, kept, i in zip(ids, mask, index, strict=True):
            place = slice(0, len(prompts[i])) if config.is_encoder_decoder else slice(width - len(prompts[i]), width)
            line[place], kept[place] = torch.tensor(prompts[i]), 1
        with torch.inference_mode():
            made = model.generate(  # type: ignore[operator]
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                eos_token_id=list(stop_ids),
                pad_token_id=pad_id,
                max_new_tokens=room,
                **plain,
            )
        answers = made[:, 1:] if config.is_encoder_decoder else made[:, width:]
        for i, answer in zip(index, answers.tolist(), strict=True):
            end = next((place for place, token in enumerate(answer) if token in stop_ids), len(answer))
            found[i] = answer[:end]
        done(len(index))
    return [found[i] for i in range(len(prompts))]


def _together(prompts: Sequence[Sequence[int]], roomy: float) -> list[list[int]]:
    """Indices of `prompts` in batches of like length; those of more than `roomy` tokens alone."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    fitting = [i for i in order if len(prompts[i]) <= roomy]
    return [fitting[at : at + EVAL_BATCH] for at in range(0, len(fitting), EVAL_BATCH)] + [[i] for i in order[len(fitting) :]]
