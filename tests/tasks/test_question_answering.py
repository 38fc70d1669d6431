"""Windows, answers and their scores: against transformers, an oracle, and what SQuAD's and MLQA's scripts say by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from edgetune.tasks import Forward, Scores
from edgetune.tasks import question_answering as task

WORDS = ("who", "wrote", "the", "song", "ada", "in", "paris", "long", "ago", "and", "sang", "it")
CONTEXT = "Ada wrote the song in Paris, long ago, and sang it."


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *WORDS,
        ",",
        ".",
        "?",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    words = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=512, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **names
    )


def row(answer: str = "in Paris", context: str = CONTEXT, question: str = "Who wrote it?") -> dict[str, Any]:
    return {"question": question, "context": context, "answers": [[context.index(answer), answer]] if answer else []}


def oracle(examples: list[dict[str, Any]], none: float = -50.0) -> Forward:
    """Sure of each window's own labels; of "no answer" with logits of `none` / 2 each where the labels are others."""
    by_ids = {tuple(example["input_ids"]): example["labels"] for example in examples}

    def run(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        ids = given["input_ids"]
        said = {name: np.full(ids.shape, -20.0, dtype=np.float32) for name in ("start_logits", "end_logits")}
        for i, (line, mask) in enumerate(zip(ids, given["attention_mask"], strict=True)):
            for logits, place in zip(said.values(), by_ids[tuple(line[mask > 0].tolist())], strict=True):
                logits[i, 0] = none / 2
                logits[i, place] = 10.0
        return said

    return run


def test_one_window(tokenizer: Any) -> None:
    [example] = task.encode([row()], tokenizer, max_length=64).examples
    whole = tokenizer("Who wrote it?", CONTEXT)
    assert example["input_ids"] == whole["input_ids"]
    assert example["token_type_ids"] == whole["token_type_ids"]
    assert tokenizer.decode(example["input_ids"][example["labels"][0] : example["labels"][1] + 1]) == "in paris"
    assert example["first"] == example["input_ids"].index(3) + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=120), st.integers(12, 60))
def test_windows_are_those_of_transformers(tokenizer: Any, words: list[str], longest: int) -> None:
    found = task.encode([row("", " ".join(words), "who sang")], tokenizer, max_length=longest).examples
    room = longest - 5
    theirs = tokenizer(
        "who sang",
        " ".join(words),
        truncation="only_second",
        max_length=longest,
        stride=min(task.STRIDE, room // 2),
        return_overflowing_tokens=True,
    )
    assert [example["input_ids"] for example in found] == theirs["input_ids"]
    assert [example["token_type_ids"] for example in found] == theirs["token_type_ids"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=3, max_size=80), st.data())
def test_an_oracle_finds_every_answer(tokenizer: Any, words: list[str], draw: st.DataObject) -> None:
    """Whatever the window, if it holds the answer."""
    first = draw.draw(st.integers(0, len(words) - 1))
    last = draw.draw(st.integers(first, min(first + 7, len(words) - 1)))
    context = " ".join(words)
    start = len(" ".join(words[:first])) + (first > 0)
    rows = [{"question": "who", "context": context, "answers": [[start, " ".join(words[first : last + 1])]]}]
    examples = task.encode(rows, tokenizer, max_length=26).examples
    assert any(example["labels"] != [0, 0] for example in examples), "windows share half, so one holds it"
    found = task.score(oracle(examples), examples, 0, size=3)
    assert found.value.tolist() == [1.0]
    assert task.metrics(found)["exact_match"] == 1.0


def test_a_question_that_is_too_long_is_cut(tokenizer: Any) -> None:
    found = task.encode([row(question="who wrote " * 20)], tokenizer, max_length=24)
    assert found.cut == 1
    assert all(len(example["input_ids"]) <= 24 and example["offsets"] for example in found.examples)
    assert task.encode([row("", context="\u200b")], tokenizer, max_length=24).left_out == [
        (0, "no token of the context fits beside the question into 24 tokens")
    ]


@pytest.mark.parametrize(
    ("said", "right", "f1", "exact"),
    [
        ("the Denver Broncos!", "Denver Broncos", 1, 1),
        ("Denver", "Denver Broncos", 2 / 3, 0),
        ("a b b", "b b c", 0.8, 0),
        ("", "", 1, 1),
        ("", "x", 0, 0),
        ("the", "a", 1, 1),
    ],
)
def test_answers_as_squad_compares_them(said: str, right: str, f1: float, exact: float) -> None:
    assert task.compare(said, right, by_character=False) == pytest.approx((f1, exact))


def test_answers_by_character_as_mlqa_compares_them() -> None:
    assert task.words("308 分，在NFL。", by_character=True) == ["308", "分", "在", "nfl"]
    assert task.compare("丹佛野马队", "丹佛野马", by_character=True) == pytest.approx((8 / 9, 0))
    assert task.compare("丹佛野马", "“丹佛野马”", by_character=True) == (1, 1)
    assert task.compare("丹佛野马队", "丹佛野马", by_character=False) == (0, 0), "which is why"


def test_characters_are_counted_where_the_question_has_them(tokenizer: Any) -> None:
    examples = task.encode([row(), row(question="谁写的?")], tokenizer, max_length=64).examples
    assert [example["by_character"] for example in examples] == [False, True]


def test_the_best_span_is_that_of_all_spans() -> None:
    chance = np.random.default_rng(0)
    for count in (1, 2, 7, 45):
        starts, ends = chance.normal(size=(2, count))
        total, start, end = task._best("x" * count, [[i, i + 1] for i in range(count)], starts, ends)
        every = {(i, j): starts[i] + ends[j] for i in range(count) for j in range(i, min(count, i + task.LONGEST))}
        assert (start, end - 1) == max(every, key=every.__getitem__)
        assert total == pytest.approx(max(every.values()))


def test_questions_are_scored_not_windows(tokenizer: Any) -> None:
    rows = [row("sang it", " ".join([CONTEXT] * 4)[:120]), row("Ada")]
    examples = task.encode(rows, tokenizer, max_length=24).examples
    assert len(examples) > 2
    found = task.score(oracle(examples), examples[::-1], 0)
    assert found.value.shape == (2,)
    alone = task.score(oracle(examples), [example for example in examples if example["item"] == 1], 0)
    assert found.value[1] == alone.value[0] == 1.0


def test_answers_that_are_not_there(tokenizer: Any) -> None:
    rows = [row(), row("", question="Who sang it?"), row("Ada", question="Who?")]
    examples = task.encode(rows, tokenizer, max_length=64).examples
    sure = task.score(oracle(examples), examples, 0)
    assert sure.value.tolist() == [1, 1, 1]
    assert task.metrics(sure)["no_answer_accuracy"] == 1.0
    hesitant = task.score(oracle(examples, none=30.0), examples, 0)  # 15 + 15 for none against 10 + 10
    assert hesitant.value.tolist() == [0, 1, 0]
    chosen = task.calibrate(hesitant, None)  # type: ignore[arg-type]
    assert task.calibrated(hesitant, chosen) == {"f1": 1.0, "exact_match": 1.0, "has_answer_f1": 1.0, "no_answer_accuracy": 1.0}
    examples = task.encode(rows[::2], tokenizer, max_length=64).examples
    answered = task.score(oracle(examples), examples, 0)
    assert task.calibrate(answered, None)["no_answer_above"] is None  # type: ignore[arg-type]
    assert "no_answer_accuracy" not in task.metrics(answered)


@settings(max_examples=100, deadline=None)
@example([(0.0, True, 0.5), (0.0, False, 0.0)])
@given(st.lists(st.tuples(st.floats(-3, 3), st.booleans(), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=12))
def test_no_threshold_does_better(rows: list[tuple[float, bool, float]]) -> None:
    extra = np.zeros((len(rows), 6))
    extra[:, task.GAP] = [gap for gap, _, _ in rows]
    extra[:, task.ANSWERABLE] = [has for _, has, _ in rows]
    extra[:, task.F1_ANSWERED] = [f1 * has for _, has, f1 in rows]
    scores = Scores(np.zeros(len(rows)), np.ones(len(rows)), extra=extra)
    chosen = task.calibrate(scores, None)  # type: ignore[arg-type]
    if chosen["no_answer_above"] is None:
        assert all(has for _, has, _ in rows)
        return
    reached = task.calibrated(scores, chosen)["f1"]
    assert all(task.calibrated(scores, {"no_answer_above": t})["f1"] <= reached + 1e-9 for t in (-4.0, *(gap for gap, _, _ in rows), 4.0))


def test_the_loss_is_that_of_transformers(tokenizer: Any) -> None:
    """Without padding; and padding changes nothing."""
    from transformers import BertConfig, BertForQuestionAnswering

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)).eval()
    examples = task.encode([row(), row("Ada", question="Who wrote it long ago?")], tokenizer, max_length=64).examples

    def lost(some: list[dict[str, Any]], longer: int = 0) -> float:
        batch = {name: torch.from_numpy(value) for name, value in task.collate(some, 0).items()}
        wide = {name: torch.nn.functional.pad(value, (0, longer)) if name != "labels" else value for name, value in batch.items()}
        with torch.no_grad():
            said = model(**{name: value for name, value in wide.items() if name != "labels"})
            ours = float(task.loss(said, wide))
            if not longer and len(some) == 1:
                start, end = batch["labels"].T
                theirs = model(**{**batch, "labels": None}, start_positions=start, end_positions=end).loss
                assert ours == pytest.approx(float(theirs), rel=1e-5)
        return ours

    one, two = lost(examples[:1]), lost(examples[1:])
    assert lost(examples) == pytest.approx((one + two) / 2, rel=1e-4)
    assert lost(examples[:1], longer=9) == pytest.approx(one, rel=1e-4)

    def forward(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {
                name: value.numpy() for name, value in model(**{name: torch.from_numpy(value) for name, value in given.items()}).items()
            }

    assert task.metrics(task.score(forward, examples, 0))["loss"] == pytest.approx((one + two) / 2, rel=1e-4)
