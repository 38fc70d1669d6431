"""Scores of texts against the libraries' own numbers, and greedy answers of a batch against those of each prompt alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conformance import models
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import corpus_bleu, corpus_chrf

from edgetune.tasks import generated

TEXTS = ["find . -name '*.png'", "the cat sat on the mat", "ls", "completely different"]
REFERENCES = ["find . -name '*.jpg'", "a cat sat on a mat", "ls", "grep -r word ."]


def test_scores_are_those_of_the_libraries() -> None:
    found = generated.measure(TEXTS, REFERENCES)
    assert tuple(found) == generated.METRICS
    assert found["exact_match"] == 0.25
    assert found["chrf"] == pytest.approx(corpus_chrf(TEXTS, [REFERENCES]).score / 100)
    assert found["bleu"] == pytest.approx(corpus_bleu(TEXTS, [REFERENCES]).score / 100)
    scorer = RougeScorer(list(generated.ROUGE))
    for name in generated.ROUGE:
        own = [scorer.score(reference, text)[name].fmeasure for text, reference in zip(TEXTS, REFERENCES, strict=True)]
        assert found[name] == pytest.approx(sum(own) / len(own))


@pytest.mark.parametrize("text", ["включи свет на кухне сейчас", "今天的天气怎么样呢", "schalte das Licht über der Tür ein"])
def test_other_scripts_count(text: str) -> None:
    """rouge-score's own words are a to z: it would find nothing in common, or parts of words."""
    assert generated.measure([text], [text]) == pytest.approx(dict.fromkeys(generated.METRICS, 1.0))
    half = generated.measure([text[: len(text) // 2]], [text])
    assert 0 < half["rouge1"] < 1 and 0 < half["chrf"] < 1 and half["exact_match"] == 0
    assert generated.measure(["ä"], ["ö"])["rouge1"] == 0


def test_an_empty_answer_scores_nothing() -> None:
    assert generated.measure([""], ["ls"]) == dict.fromkeys(generated.METRICS, 0.0)
    assert generated.measure(["ls \n -l "], ["ls -l"])["exact_match"] == 1


def test_what_to_beat_without_a_model() -> None:
    answers = ["one two", "one two", "one two three four", "a b c d e f g"]
    assert generated.lead(["first second third fourth", "alone"], answers) == ["first second third", "alone"]
    assert generated.commonest(["x", "y"], answers) == ["one two", "one two"]


def test_rows_are_drawn_by_the_seed_in_their_order() -> None:
    first, again, other = (generated.chosen(1000, 10, seed) for seed in (0, 0, 1))
    assert first == again == sorted(set(first)) and len(first) == 10 and first != other
    assert generated.chosen(3, 10, 0) == [0, 1, 2]


def test_an_answer_may_be_as_long_as_nearly_all_that_were_learned() -> None:
    def tokenizer(texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0] * len(text) for text in texts]}

    assert generated.longest(["x" * 10] * 200 + ["x" * 500], tokenizer) == 10 + generated.MARGIN
    assert generated.longest(["x" * length for length in range(1, 101)], tokenizer) == 100 + generated.MARGIN


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    folder = models.decoder(tmp_path_factory.mktemp("llama"), [*TEXTS, *REFERENCES])
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_a_batch_answers_as_each_prompt_alone(llama: Any) -> None:
    chance = torch.Generator().manual_seed(0)
    prompts = [torch.randint(2, 200, (length,), generator=chance).tolist() for length in (3, 40, 7, 7, 1, 23, 12, 5, 9, 30, 2)]
    alone = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        made = llama.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, eos_token_id=-1, pad_token_id=0)
        alone.append(made[0, len(prompt) :].tolist())
    seen: list[int] = []
    found = generated.greedy(llama, prompts, pad_id=0, stop_ids=[], max_new_tokens=12, done=seen.append)
    assert found == alone and sum(seen) == len(prompts) and len(seen) > 1
    stop = alone[1][4]
    stopped = generated.greedy(llama, prompts, pad_id=0, stop_ids=[stop], max_new_tokens=12)
    assert stopped == [answer[: answer.index(stop)] if stop in answer else answer for answer in alone]
    short = generated.greedy(llama, prompts, pad_id=0, stop_ids=[], max_new_tokens=12, max_length=45)
    assert short == [answer[: 45 - len(prompt)] for answer, prompt in zip(alone, prompts, strict=True)]


def test_the_models_own_habits_of_sampling_do_not_count(llama: Any, tmp_path: Path) -> None:
    from copy import deepcopy

    prompts = [[5, 6, 7], [9, 8]]
    plain = generated.greedy(llama, prompts, pad_id=0, stop_ids=[], max_new_tokens=10)
    other = deepcopy(llama)
    other.generation_config.update(
        do_sample=True, temperature=3.0, repetition_penalty=5.0, num_beams=3, min_length=9, no_repeat_ngram_size=1
    )
    assert generated.greedy(other, prompts, pad_id=0, stop_ids=[], max_new_tokens=10) == plain
