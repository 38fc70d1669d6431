"""Which words a model's embedding puts next to each other."""

from __future__ import annotations

from typing import Any

import torch

from edgetune.methods import near_words

WORDS = ["lamp", "light", "door", "gate", "seven", "ligh", "##t", "[UNK]"]
PLACES = torch.tensor([[4, 0, 0], [4, 1, 0], [0, 4, 0], [0, 4, 1], [-4, -4, 5], [4, 0.5, 0], [3, 1, 0], [4, 0, 0]])


class Words:
    """A tokenizer of whole words, each after a blank; `lights` is two pieces, `rune` cannot be spelt."""

    unk_token_id = 7

    def __call__(self, words: list[str], **options: Any) -> dict[str, list[list[int]]]:
        pieces = {word: [i] for i, word in enumerate(WORDS)} | {"lights": [5, 6], "ghost": [], "rune": [7]}
        return {"input_ids": [pieces[word.removeprefix(" ")] for word in words if word.startswith(" ")]}


def test_near_words_are_those_of_the_texts_that_the_embedding_puts_together() -> None:
    found = near_words.find(["Lamp light, DOOR", "gate seven 7 a", "lights ghost rune"], Words(), PLACES)
    assert found["lamp"][0] in ("light", "lights") and set(found["lamp"]) == {"light", "lights"}
    assert found["door"] == ("gate",) and found["gate"] == ("door",)
    assert "seven" not in found, "nothing is near"
    assert not {"ghost", "rune"} & set(found), "no piece of them is known"
    assert all(word not in near for word, near in found.items())


def test_few_words_have_none() -> None:
    assert near_words.find([], Words(), PLACES) == {}
    assert near_words.find(["lamp", "1 2"], Words(), PLACES) == {}


def test_the_nearest_come_first_and_are_few(monkeypatch: Any) -> None:
    monkeypatch.setattr(near_words, "NEAREST", 1)
    monkeypatch.setattr(near_words, "CHUNK", 2)  # rows of the table at a time
    found = near_words.find(["lamp light door gate seven"], Words(), PLACES)
    assert found == {"lamp": ("light",), "light": ("lamp",), "door": ("gate",), "gate": ("door",)}
