"""What the decoder learns and from where it starts; what of a model's search settings is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pairs
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

from edgetune.errors import ModelError
from edgetune.methods.model import forward, load_merged
from edgetune.tasks import inputs
from edgetune.tasks import text2text_generation as task

ROWS = pairs.rows(6, seed=3)


@pytest.fixture(scope="module", params=pairs.FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pairs.folder(request.param, tmp_path_factory.mktemp(request.param), steps=3)


def test_as_transformers_shifts_and_weighs(folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    examples = task.encode(ROWS, tokenizer, max_length=pairs.LENGTH).examples
    batch = {name: torch.from_numpy(array) for name, array in task.collate(examples, pairs.PAD).items()}
    with torch.inference_mode():
        theirs = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"])
        ours = model(**inputs(batch))
    learned = batch["labels"] != task.NOT_LEARNED
    torch.testing.assert_close(ours["logits"][learned], theirs["logits"][learned])
    torch.testing.assert_close(task.loss(ours, batch), theirs["loss"])
    assert all(example["labels"][-1] == pairs.END and -1 not in example["labels"] for example in examples)


def test_scores_are_by_row(folder: Path) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_merged(folder, "text2text-generation")
    examples = task.encode(ROWS, tokenizer, max_length=pairs.LENGTH).examples
    scores = task.score(forward(model), examples, pairs.PAD, size=4)
    lengths = [len(example["input_ids"]) for example in examples]
    assert lengths != sorted(lengths), "batches are of like length: another order"
    for example, value, weight in zip(examples, scores.value, scores.weight, strict=True):
        with torch.inference_mode():
            given = {"input_ids": torch.tensor([example["input_ids"]]), "labels": torch.tensor([example["labels"]])}
            assert value / weight == pytest.approx(float(model(**given).loss), rel=1e-5)
        assert weight == len(example["labels"])
    assert task.metrics(scores)["perplexity"] == pytest.approx(math.exp(scores.value.sum() / scores.weight.sum()))


def test_a_long_source_is_cut_and_a_long_target_left_out(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    long = " ".join(pairs.WORDS)
    found = task.encode([{"source": long, "target": "der"}, {"source": "red", "target": long}, ROWS[0]], tokenizer, max_length=8)
    assert len(found.examples) == 2 and found.cut == 1
    assert len(found.examples[0]["input_ids"]) == 8 and found.examples[0]["input_ids"][-1] == pairs.END
    [(row, reason)] = found.left_out
    assert row == 1 and "tokens of target, over the 8" in reason


def test_without_a_start_or_an_end_nothing_is_learned(folder: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="starts from"):
        task.encode(ROWS, AutoTokenizer.from_pretrained(tmp_path), max_length=pairs.LENGTH)
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="ends an answer"):
        task.encode(ROWS, tokenizer, max_length=pairs.LENGTH)


def test_settings_of_the_search(folder: Path) -> None:
    tokenizer, config = AutoTokenizer.from_pretrained(folder), GenerationConfig.from_pretrained(folder)
    config.update(
        num_beams=5, length_penalty=0.6, max_length=40, forced_eos_token_id=2, bad_words_ids=[[9], [4, 5]], repetition_penalty=1.3
    )
    found, ignored = task.search_settings(tokenizer, config)
    assert (found["num_beams"], found["length_penalty"], found["max_new_tokens"], found["forced_eos_token_ids"]) == (5, 0.6, 39, [2])
    assert found["never"] == [9] and found["stop_ids"] == [pairs.END] and found["early_stopping"] is False
    assert ignored == ["repetition_penalty", "bad_words_ids of several tokens"]
    json.dumps(found)
