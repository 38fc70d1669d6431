"""What a tokenizer's entries are for: which ones spell words that have no entry of their own, and which ones are frequent.

Nothing is counted on a corpus: WordPiece vocabularies are ordered by frequency (BERT's after its placeholders and characters), BPE merges
by priority, and Unigram entries have log probabilities (Kudo, arXiv:1804.10959). Those orders are taken.

Why a pruned tokenizer is the old one on the strings whose pieces are all there:
WordPiece takes the longest entry that fits, Unigram the best path through the entries: fewer entries offer no other longest and no better.
BPE replays the same merges as long as each merge inside a kept entry is kept too (`Pieces.needs`).
And no string is [UNK] that was not: every single character stays, and where a longer entry has a character without an entry of its own, so do
all entries that share characters with it, directly or through others (`entangled`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from edgetune.errors import ModelError


@dataclass(frozen=True)
class Pieces:
    """The entries of a tokenizer's model, without its added tokens' own rules.

    `spelling`: what has to stay. `frequent`: the rest that text can meet, most frequent first. `needs(entry)`: the entries
    that it is built from on the way.
    """

    spelling: frozenset[str]
    frequent: tuple[str, ...]
    needs: Callable[[str], frozenset[str]]


def of(definition: Mapping[str, Any], tokenizer: Any) -> Pieces:
    """The pieces of tokenizer.json, loaded as the `tokenizers.Tokenizer`. Raises ModelError for a model that cannot spell (WordLevel)."""
    kind = definition["model"]["type"]
    if kind not in KINDS:
        raise ModelError(
            f"a {kind} tokenizer cannot be pruned: a word without an entry would be lost", details=[f"known: {', '.join(KINDS)}"]
        )
    return KINDS[kind](definition, tokenizer)


def entangled(words: Mapping[str, Sequence[str]], entries: Iterable[str]) -> set[str]:
    """Entries that share characters, directly or through other entries, with one that single characters cannot spell.

    `words`: entry -> its characters, each as the entry that would stand for it alone. What is not entangled has no character in common with
    what is, so a word falls apart in between, whatever was dropped.
    """
    known = set(entries)
    marks = {entry: {form[-1] for form in forms} for entry, forms in words.items()}
    letters: set[str] = set()
    for entry, forms in words.items():
        if any(form not in known for form in forms):
            letters |= marks[entry]
    found: set[str] = set()
    while letters:
        more = {entry for entry in words if entry not in found and marks[entry] & letters}
        if not more:
            break
        found |= more
        letters |= set().union(*(marks[entry] for entry in more))
    return found


def _wordpiece(definition: Mapping[str, Any], tokenizer: Any) -> Pieces:
    model = definition["model"]
    prefix, vocab = model["continuing_subword_prefix"], model["vocab"]
    added = {token["content"] for token in definition["added_tokens"]}
    can_occur = _bert_word(definition, tokenizer)

    def inside(entry: str) -> str:
        return entry[len(prefix) :] if prefix and entry.startswith(prefix) and len(entry) > len(prefix) else ""

    def occurs(entry: str) -> bool:
        return entry not in added and can_occur(f"a{inside(entry)}" if inside(entry) else entry)

    entries = [entry for entry in sorted(vocab, key=vocab.__getitem__) if occurs(entry)]
    words = {}
    for entry in entries:
        rest = inside(entry)
        words[entry] = [prefix + letter for letter in rest] if rest else [entry[0], *(prefix + letter for letter in entry[1:])]
    alone = {entry for entry in entries if len(inside(entry) or entry) == 1}
    spelling = alone | entangled(words, entries)
    return Pieces(frozenset(spelling), tuple(entry for entry in entries if entry not in spelling), lambda entry: frozenset())


def _bert_word(definition: Mapping[str, Any], tokenizer: Any) -> Callable[[str], bool]:
    """Can normaliser and pre-tokenizer leave these characters in one word? BERT's look at one character at a time, so this is exact for them
    ([unused7] is four words, and uncased text holds no capitals); for others everything can."""
    normalizer, splitter = definition["normalizer"] or {}, definition["pre_tokenizer"] or {}
    if normalizer.get("type") != "BertNormalizer" or splitter.get("type") != "BertPreTokenizer":
        return lambda word: True

    def occurs(word: str) -> bool:
        normal = tokenizer.normalizer.normalize_str(word).strip()
        return normal == word and len(tokenizer.pre_tokenizer.pre_tokenize_str(normal)) == 1

    return occurs


def _bpe(definition: Mapping[str, Any], tokenizer: Any) -> Pieces:
    model = definition["model"]
    vocab, prefix, suffix = model["vocab"], model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    merges = [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]
    rank = {merge: i for i, merge in enumerate(merges)}
    built = {merge: merge[0] + merge[1][len(prefix) :] for merge in merges}
    added = {token["content"] for token in definition["added_tokens"]}

    def letters(entry: str) -> list[str]:
        body, end = (entry[: -len(suffix)], suffix) if suffix and entry.endswith(suffix) and entry != suffix else (entry, "")
        start = prefix if prefix and body.startswith(prefix) and body != prefix else ""
        marks = list(body[len(start) :])
        return [(prefix if i else start) + mark + (end if i == len(marks) - 1 else "") for i, mark in enumerate(marks)]

    def needs(entry: str) -> frozenset[str]:
        symbols, made = letters(entry), set()
        while len(symbols) > 1:
            best, at = min((rank.get(pair, len(rank)), i) for i, pair in enumerate(pairwise(symbols)))
            if best == len(rank):
                return frozenset()  # met as a whole word only (`ignore_merges`), or never
            symbols[at : at + 2] = [built[merges[best]]]
            made.add(symbols[at])
        return frozenset(made - {entry})

    spelled = {entry: letters(entry) for entry in vocab if entry not in added}
    spelling = {entry for entry, marks in spelled.items() if len(marks) == 1} | (BYTES & vocab.keys() if model["byte_fallback"] else set())
    if model.get("ignore_merges"):  # a whole word needs no characters of its own
        spelling |= {entry for entry, marks in spelled.items() if any(mark not in vocab for mark in marks)}
    frequent = dict.fromkeys(built[merge] for merge in merges)
    return Pieces(frozenset(spelling), tuple(entry for entry in frequent if entry not in spelling), needs)


def _unigram(definition: Mapping[str, Any], tokenizer: Any) -> Pieces:
    model = definition["model"]
    added = {token["content"] for token in definition["added_tokens"]}
    scores = {entry: score for entry, score in model["vocab"] if entry not in added}
    spelling = {entry for entry in scores if len(entry) == 1} | (BYTES & scores.keys() if model["byte_fallback"] else set())
    spelling |= entangled({entry: list(entry) for entry in scores if entry not in BYTES}, scores)
    if model["unk_id"] is not None:
        spelling.add(model["vocab"][model["unk_id"]][0])
    spelling.add(min(model["vocab"], key=lambda item: item[1])[0])  # what an unknown character costs is counted from the least score
    frequent = sorted((entry for entry in scores if entry not in spelling), key=lambda entry: -scores[entry])
    return Pieces(frozenset(spelling), tuple(frequent), lambda entry: frozenset())


BYTES = {f"<0x{byte:02X}>" for byte in range(256)}
KINDS: dict[str, Callable[[Mapping[str, Any], Any], Pieces]] = {"WordPiece": _wordpiece, "BPE": _bpe, "Unigram": _unigram}
