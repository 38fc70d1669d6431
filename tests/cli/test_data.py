from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_what_is_in_it(edgetune, data_folder: Path) -> None:
    answer = edgetune("data", "check", data_folder, "--task", "text-classification")
    assert answer.code == 0, answer.err
    for word in ("train.csv", "text = text", "label = label", "open", "close", "paint", "cut from train"):
        assert word in answer.out
    assert "edgetune adapt" in answer.err


def test_json_has_the_facts_and_no_text_of_the_rows(edgetune, data_folder: Path) -> None:
    answer = edgetune("data", "check", data_folder, "--task", "text-classification", "--json")
    found = answer.json
    assert found["labels"] == ["close", "open", "paint"]
    assert found["read"] == 48
    assert sum(found["rows"].values()) + len(found["dropped"]) == found["read"]
    assert "curtain" not in answer.out


def test_quiet_counts_rows(edgetune, data_folder: Path) -> None:
    lines = edgetune("data", "check", data_folder, "--task", "text-classification", "-q").out.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["train", "validation", "test"]
    assert sum(int(line.split("\t")[1]) for line in lines) == 48


def test_the_task_is_found_by_the_columns(edgetune, data_folder: Path, tmp_path: Path) -> None:
    assert "read as text-classification" in edgetune("data", "check", data_folder).err
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"count to {i}", "completion": f"seq {i}"}) + "\n" for i in range(40)))
    answer = edgetune("data", "check", file, "--json")
    assert answer.json["task"] == "text-generation"
    assert "read as text-generation" in answer.err


def test_bad_rows_are_exit_2_with_their_numbers(edgetune, data_folder: Path) -> None:
    file = data_folder / "train.csv"
    file.write_text(file.read_text() + "a text without a label,\n")
    answer = edgetune("data", "check", data_folder, "--task", "text-classification")
    assert answer.code == 2
    assert answer.out == ""
    assert "row 38" in answer.err
    assert "--set data.on_bad_row=drop" in answer.err
    dropped = edgetune("data", "check", data_folder, "--on-bad-row", "drop", "--task", "text-classification")
    assert dropped.code == 0
    assert "left out: 1 rows" in dropped.out
    assert "no label" in dropped.out


def test_nothing_there(edgetune, tmp_path: Path) -> None:
    answer = edgetune("data", "check", tmp_path / "nothing.csv")
    assert answer.code == 2
    assert "nothing.csv" in answer.err
    assert len(answer.err.splitlines()) <= 20


def test_show_tokens_needs_a_model(edgetune, data_folder: Path) -> None:
    answer = edgetune("data", "check", data_folder, "--show-tokens")
    assert answer.code == 2
    assert "--model" in answer.err


CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    """A directory that has all that a tokenizer needs, and the weights of nothing."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import ByteLevel
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    folder = tmp_path / "model"
    words = {token: i for i, token in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = CHAT
    fast.save_pretrained(folder)
    LlamaConfig(vocab_size=len(words)).save_pretrained(folder)
    save_file({}, folder / "model.safetensors")
    return folder


def test_show_tokens_marks_what_is_learned(edgetune, tmp_path: Path, generator: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"count to {i}", "completion": f"seq {i}"}) + "\n" for i in range(40)))
    arguments = ("data", "check", file, "--task", "text-generation", "--model", generator, "--show-tokens")
    answer = edgetune(*arguments, "--json")
    assert answer.code == 0, answer.err
    tokens = answer.json["sample"]["tokens"]
    learned = "".join(token["text"] for token in tokens if token["learned"])
    prompt = "".join(token["text"] for token in tokens if not token["learned"])
    assert learned.startswith("seq ")
    assert learned.endswith("</s>"), "the end of the turn is learned"
    assert prompt.startswith("<s>user: count to ")
    assert prompt.endswith("<s>assistant: ")
    shown = edgetune(*arguments).out
    assert "[s][e][q]" in shown, "without colour, brackets mark what is learned"
    assert "[c]" not in shown


def test_show_tokens_of_a_text_made_of_another(edgetune, tmp_path: Path) -> None:
    import pairs

    model, file = pairs.folder("t5", tmp_path / "model", steps=1), tmp_path / "pairs.jsonl"
    rows = pairs.rows(40)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer = edgetune("data", "check", file, "--task", "text2text-generation", "--model", model, "--show-tokens", "--json")
    assert answer.code == 0, answer.err
    tokens = answer.json["sample"]["tokens"]
    read, learned = ([token["text"] for token in tokens if token["learned"] == known] for known in (False, True))
    assert read[-1] == learned[-1] == "</s>"
    assert {"source": " ".join(read[:-1]), "target": " ".join(learned[:-1])} in rows


def test_show_tokens_of_a_classification_row_names_its_label(edgetune, data_folder: Path, generator: Path) -> None:
    answer = edgetune("data", "check", data_folder, "--task", "text-classification", "--model", generator, "--show-tokens", "--json")
    sample = answer.json["sample"]
    assert sample["label"] in ("open", "close", "paint")
    assert not any(token["learned"] for token in sample["tokens"])
