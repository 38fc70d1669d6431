"""Small tokenizers of every kind that a vocabulary can have, trained on the spot, as tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from edgetune.compress.sample import TEXTS

CORPUS = [text for text, _ in tiny.sentences(300)] * 2 + list(TEXTS)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def _bytes(tokenizer: Tokenizer) -> Tokenizer:
    """`tokenizer` with an entry for each byte that stands in for characters without one."""
    definition = json.loads(tokenizer.to_str())
    model = definition["model"]
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    if isinstance(model["vocab"], dict):
        model["vocab"] |= {piece: len(model["vocab"]) + i for i, piece in enumerate(pieces)}
    else:
        model["vocab"] += [[piece, -30.0] for piece in pieces]
    model["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(definition))


def _without(tokenizer: Tokenizer, *entries: str) -> Tokenizer:
    """`tokenizer` without these entries: longer ones keep their characters, so not every word can be spelled."""
    definition = json.loads(tokenizer.to_str())
    model = definition["model"]
    if isinstance(model["vocab"], dict):
        names = [name for name in sorted(model["vocab"], key=model["vocab"].__getitem__) if name not in entries]
        assert len(names) == len(model["vocab"]) - len(entries)
        model["vocab"] = {name: i for i, name in enumerate(names)}
    else:
        assert set(entries) <= {name for name, _ in model["vocab"]}
        unknown = model["vocab"][model["unk_id"]]
        model["vocab"] = [item for item in model["vocab"] if item[0] not in entries]
        model["unk_id"] = model["vocab"].index(unknown)
    return Tokenizer.from_str(json.dumps(definition))


def _moved(tokenizer: Tokenizer) -> Tokenizer:
    """`tokenizer` with its first four entries, the special ones, as the last: numbers that change when entries are dropped."""
    definition = json.loads(tokenizer.to_str())
    model = definition["model"]
    size, first = len(model["vocab"]), len(SPECIAL)
    if isinstance(model["vocab"], dict):
        model["vocab"] = {name: (i - first) % size for name, i in model["vocab"].items()}
    else:
        model["vocab"] = model["vocab"][first:] + model["vocab"][:first]
        model["unk_id"] = (model["unk_id"] - first) % size
    for token in definition["added_tokens"]:
        token["id"] = (token["id"] - first) % size
    definition["added_tokens"].sort(key=lambda token: token["id"])
    return Tokenizer.from_str(json.dumps(definition))


def _ends(tokenizer: Tokenizer) -> dict[str, int]:
    return {name: tokenizer.token_to_id(name) for name in ("<s>", "</s>")}


def wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", *(f"[unused{i}]" for i in range(9)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False))
    definition = json.loads(tokenizer.to_str())
    placeholders = [token for token in definition["added_tokens"] if "unused" in token["content"]]
    definition["added_tokens"] = [token for token in definition["added_tokens"] if token not in placeholders]  # as BERT has them
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 12), ("[CLS]", 11))
    return tokenizer


def wordpiece_that_cannot_spell() -> Tokenizer:
    return _without(wordpiece(), "##о", "##ы", "н")


def wordpiece_by_whitespace() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=800, special_tokens=SPECIAL, show_progress=False))
    return tokenizer


def bpe_bytes(**options: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer = _moved(tokenizer)
    start, end = _ends(tokenizer).items()
    tokenizer.post_processor = processors.RobertaProcessing(end, start)
    return tokenizer


def bpe_whole_words() -> Tokenizer:
    """As Llama 3's: a word that is an entry is taken at once."""
    return bpe_bytes(ignore_merges=True)


def bpe_sentencepiece() -> Tokenizer:
    """As Llama 2's."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=SPECIAL, limit_alphabet=150, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer = _moved(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=list(_ends(tokenizer).items()))
    return _bytes(tokenizer)


def bpe_letters() -> Tokenizer:
    """As the first GPT's: the end of a word is marked, and a rare letter is unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL, limit_alphabet=90, end_of_word_suffix="</w>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def bpe_continuing() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(vocab_size=800, special_tokens=SPECIAL, continuing_subword_prefix="##", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def unigram(*without: str) -> Tokenizer:
    """As XLM-R's and T5's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS, trainers.UnigramTrainer(vocab_size=700, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    )
    tokenizer = _moved(_without(tokenizer, *without))
    ends = list(_ends(tokenizer).items())
    template = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=ends)
    tokenizer.post_processor = processors.Sequence([template])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    tokenizer.add_tokens(["edgetune"])
    return tokenizer


def unigram_that_cannot_spell() -> Tokenizer:
    return unigram("о", "n", "u")


def unigram_bytes() -> Tokenizer:
    return _bytes(unigram())


EVERY: dict[str, Callable[[], Tokenizer]] = {
    make.__name__: make
    for make in (
        *(wordpiece, wordpiece_that_cannot_spell, wordpiece_by_whitespace),
        *(bpe_bytes, bpe_whole_words, bpe_sentencepiece, bpe_letters, bpe_continuing),
        *(unigram, unigram_that_cannot_spell, unigram_bytes),
    )
}


def save(tokenizer: Tokenizer, folder: Path) -> Any:
    """`tokenizer` with the special tokens that it has, as a Hugging Face directory."""
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": ("<pad>", "[PAD]"), "unk_token": ("<unk>", "[UNK]"), "eos_token": ("</s>",), "bos_token": ("<s>",)}
    vocab = tokenizer.get_vocab()
    given = {kind: name for kind, known in names.items() for name in known if name in vocab}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **given)
    fast.save_pretrained(folder)
    return fast
