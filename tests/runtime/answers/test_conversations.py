"""Conversations and stop texts: prompts are what the chat template makes of them, answers what transformers' `generate` writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgetune.runtime.answers.text_generation import settled, until
from edgetune.runtime.worker import Bundle, BundleError, understood
from edgetune.tasks.text_generation import chat_parts, prompt_parts

LLAMA3 = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
DEFAULT = (  # a system message of its own where none is given, as SmolLM2 has it
    "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\nYou help<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SYSTEM, ASK, ANSWER = (
    {"role": role, "content": text} for role, text in (("system", "Be brief"), ("user", "café? "), ("assistant", "ls\n"))
)
MORE = {"role": "user", "content": "  日本 again"}
CONVERSATIONS = ([ASK], [SYSTEM, ASK], [ASK, ANSWER, MORE], [SYSTEM, ASK, ANSWER, MORE], [ASK, ANSWER, MORE, ANSWER, ASK, ANSWER, MORE])


@pytest.fixture
def chatting(generator: Path, decoder_model: tuple[Path, Path], tmp_path: Path) -> Callable[..., tuple[Bundle, Any]]:
    """(a bundle whose prompts are those of a template, the tokenizer with that template); `facts` go over its generation."""
    from transformers import AutoTokenizer

    def make(template: str, system: str = "", **facts: Any) -> tuple[Bundle, Any]:
        tokenizer = AutoTokenizer.from_pretrained(decoder_model[0])
        tokenizer.chat_template = template
        prefix, suffix = prompt_parts(tokenizer, system)
        copy = Path(shutil.copytree(generator, tmp_path / "bundle"))
        written = json.loads((copy / "edgetune.json").read_text("utf-8"))
        written["generation"] |= {"prefix": prefix, "suffix": suffix, "system": system, "chat": chat_parts(tokenizer), "stop": [], **facts}
        (copy / "edgetune.json").write_text(json.dumps(written), "utf-8")
        return Bundle(copy), tokenizer

    return make


@pytest.mark.parametrize("template", [LLAMA3, DEFAULT])
def test_a_conversation_is_answered_as_in_transformers(
    chatting: Callable[..., tuple[Bundle, Any]], decoder_model: tuple[Path, Path], template: str
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(decoder_model[0]).eval()
    bundle, tokenizer = chatting(template)
    answers = set()
    for turns in CONVERSATIONS:
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
        assert bundle.read(turns)[0] == bundle.read({"messages": turns})[0] == [{"input_ids": ids[0].tolist()}]
        with torch.no_grad():
            made = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)[0, ids.shape[1] :].tolist()
        found = bundle.generate(turns, 16)
        assert found["tokens"] + [2] * found["finished"] == made
        answers.add(tuple(made))
    assert len(answers) > 2, "the conversation does not matter: the test would prove nothing"
    assert bundle.read([{"role": "user", "content": "one"}]) == bundle.read("one")


def test_the_system_message_of_the_data_is_in_every_prompt(chatting: Callable[..., tuple[Bundle, Any]]) -> None:
    bundle, tokenizer = chatting(DEFAULT, system="Be brief")
    expected = tokenizer.apply_chat_template([SYSTEM, MORE], add_generation_prompt=True)["input_ids"]
    assert bundle.read([MORE])[0] == bundle.read([SYSTEM, MORE])[0] == [{"input_ids": expected}]
    other = [{"role": "system", "content": "Be long"}, MORE]
    assert bundle.read(other)[0] == [{"input_ids": tokenizer.apply_chat_template(other, add_generation_prompt=True)["input_ids"]}]
    text = tokenizer.apply_chat_template([SYSTEM, {"role": "user", "content": "one"}], add_generation_prompt=True)["input_ids"]
    assert bundle.read("one")[0] == [{"input_ids": text}]


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([ASK, ANSWER], "user, assistant: after a system message"),
        ([ASK, ASK], "the user and the assistant take turns"),
        ([], "messages of nobody"),
        ([{"role": "tool", "content": "x"}], "messages of tool"),
        ([{"role": "user"}], 'messages are a list of {"role"'),
        (["text"], 'messages are a list of {"role"'),
    ],
)
def test_messages_that_make_no_conversation(chatting: Callable[..., tuple[Bundle, Any]], turns: list[Any], message: str) -> None:
    bundle, _ = chatting(DEFAULT)
    with pytest.raises(BundleError, match=message):
        bundle.generate(turns)


def test_a_template_that_cannot_be_rebuilt(chatting: Callable[..., tuple[Bundle, Any]], classifier: Path, generator: Path) -> None:
    bundle, _ = chatting(DEFAULT, chat=None)
    for refusing in (bundle, Bundle(generator)):  # the second is of an older edgetune
        with pytest.raises(BundleError, match="cannot be rebuilt: give a single text"):
            refusing.generate([ASK])
    with pytest.raises(BundleError, match="this model asks for text"):
        Bundle(classifier).predict([[ASK]])


def test_what_is_typed_may_be_a_conversation() -> None:
    turns = json.dumps([ASK])
    assert understood(turns, ["text"], True) == understood(json.dumps({"messages": [ASK]}), ["text"], True) == [ASK]
    assert understood(turns, ["text"]) == turns
    for text in ("[1, 2]", "[ -f file ]", "[]", '["a"]', '{"messages": 1}'):
        assert understood(text, ["text"], True) == text
    assert understood('{"text": "a"}', ["text"], True) == {"text": "a"}


def test_a_text_ends_before_the_first_stop() -> None:
    assert until("one two three", ["three", "two"]) == "one "
    assert until("one", []) == until("one", ["four"]) == "one"
    assert settled("one tw", ["two"]) == "one "
    assert settled("one t", ["two", "e t x"]) == "on"
    assert settled("one two", ["two"]) == "one two", "a whole one is for `until`"
    assert settled("aa", ["aab"]) == "" and settled("one", []) == "one"


def spoken(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, said: str) -> list[int]:
    ids: list[int] = bundle.tokenizer.encode(said, add_special_tokens=False).ids
    monkeypatch.setattr(bundle, "tokens", lambda *_: iter(ids))
    return ids


def test_no_part_of_a_stop_is_shown(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle(generator)
    said = "ab\nQ no Question: what"
    ids = spoken(bundle, monkeypatch, said)
    assert len(ids) > 8
    for stops, expected in (
        (["Question:"], "ab\nQ no "),
        (["\nQ", "no"], "ab"),
        (["zzz"], said),
        (["ab"], ""),
        (["Question: whatever"], said),
    ):
        pieces: list[str] = []
        found = bundle.generate("?", on_text=pieces.append, stop=stops)
        assert found["text"] == "".join(pieces) == expected
        assert found["finished"] == (expected != said)
        assert found["tokens"] == ids[: len(found["tokens"])] and expected.startswith(bundle.tokenizer.decode(found["tokens"]))
        assert all(said.startswith("".join(pieces[: i + 1])) for i in range(len(pieces)))


def test_a_stop_is_seen_as_soon_as_it_is_there(generator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle(generator)
    ids = spoken(bundle, monkeypatch, "stop here and never any further")
    taken: list[int] = []
    monkeypatch.setattr(bundle, "tokens", lambda *_: (taken.append(token) or token for token in ids))
    assert bundle.generate("?", stop=["here"])["text"] == "stop "
    assert bundle.tokenizer.decode(taken).rstrip() == "stop here"


def test_stops_of_the_bundle_and_of_the_command_line(chatting: Callable[..., tuple[Bundle, Any]], generator: Path) -> None:
    plain = Bundle(generator).generate("?", 24)["text"]
    letters = [c for c in dict.fromkeys(plain) if c.isprintable() and c != " "]
    own, more = letters[3], letters[1]
    assert plain.index(more) < plain.index(own)
    bundle, _ = chatting(DEFAULT, stop=[own], **{name: Bundle(generator).generation[name] for name in ("prefix", "suffix")})
    assert bundle.generate("?", 24)["text"] == plain[: plain.index(own)]
    command = [sys.executable, str(bundle.folder / "run.py"), "?", "--max-new-tokens", "24", "--stop", more]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == plain[: plain.index(more)] + "\n"
    command = [sys.executable, "-m", "edgetune", "predict", str(bundle.folder), "?", "--max-new-tokens", "24", "--stop", more, "--json"]
    [answer] = json.loads(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
    assert answer["text"] == plain[: plain.index(more)] and answer["finished"]
