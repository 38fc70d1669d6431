"""A smaller vocabulary: the entries that the task's texts use, those that spell every other word, and the frequent ones up to a size.

After Abdaoui et al., "Load What You Need" (arXiv:2010.05609). In a small encoder the embedding is half of the bytes, and a task meets a
few thousand of its thirty thousand rows.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.compress import pieces, renumber
from edgetune.compress.sample import TEXTS
from edgetune.errors import ModelError, RecipeError, StageError
from edgetune.workspace import write_json

KEPT_FILES = ("chat_template.jinja", "LICENSE*", "NOTICE*", "README.md")
CHECKED = 8  # texts whose logits are compared
TOLERANCE = 1e-4  # of the largest logit: the rows are the same, but a narrower head may be multiplied in another order


@dataclass(frozen=True)
class Selection:
    """Old ids that stay, by what they stay for; no id is in two of them."""

    special: frozenset[int]
    texts: frozenset[int]
    spelling: frozenset[int]
    frequency: frozenset[int]

    def ids(self, tokenizer: Any) -> dict[int, int]:
        """Old id -> new id, in the old order; entries of the model come before tokens that were added to it."""
        kept = self.special | self.texts | self.spelling | self.frequency
        inner = set(tokenizer.get_vocab(with_added_tokens=False).values())
        return {old: new for new, old in enumerate(sorted(kept, key=lambda i: (i not in inner, i)))}


def prune(source: Path, texts: Iterable[str], size: int, out: Path, load: Callable[[Path], Any] | None = None) -> dict[str, Any]:
    """Write the model and tokenizer of `source` into `out` with at most `size` entries; 0: as few as can be.

    `source`: a Hugging Face directory with tokenizer.json (WordPiece, BPE or Unigram) and safetensors of a transformers model. `texts`: what the
    model will read and write, rendered as it reads it. Kept are the special tokens, the entries that `texts` use, those that spell every
    other word (characters, bytes), then the frequent ones; nobody's corpus is asked what is frequent, see `edgetune.compress.pieces`.
    `load` reads a model that is not of transformers.
    On a text whose entries were all kept, the new model gives the same tokens, renumbered, and the same logits.

    Returns JSON facts: entries, entries_before, from_special, from_texts, from_spelling, from_frequency, texts, texts_changed (share that
    is cut into other tokens: 0), unknown, unknown_before (share of the characters of `sample.TEXTS` that end in the unknown token),
    parameters, parameters_before, max_logit_difference (on some of the texts).
    Raises ModelError for a model or tokenizer that this cannot be done to, RecipeError when `size` is too small, StageError when
    the result does not keep what is promised here.
    """
    texts = list(texts)
    definition = _definition(source)
    old = _tokenizer(definition)
    chosen = select(source, definition, texts, size)
    ids = chosen.ids(old)
    load = load or _load
    model = load(source)
    before, parameters = list(_logits(model, [old.encode(text).ids for text in texts[:CHECKED]])), model.num_parameters()
    renumber.weights(model, ids)
    model.save_pretrained(out, safe_serialization=True)
    _write_settings(source, renumber.definition(definition, ids), ids, out)

    new, token = _tokenizer(_definition(out)), unknown_token(definition)
    facts = {
        "entries": len(ids),
        "entries_before": old.get_vocab_size(),
        **{f"from_{name}": len(part) for name, part in vars(chosen).items()},
        "texts": len(texts),
        "texts_changed": changed(old, new, texts),
        "unknown": unknown(new, token, TEXTS),
        "unknown_before": unknown(old, token, TEXTS),
        "parameters": model.num_parameters(),
        "parameters_before": parameters,
    }
    after = list(_logits(load(out), [new.encode(text).ids for text in texts[:CHECKED]]))
    facts["max_logit_difference"] = _difference(before, after, ids)
    _keep_promise(facts, old, new, ids)
    return facts


def select(source: Path, definition: Mapping[str, Any], texts: Sequence[str], size: int) -> Selection:
    """What stays of the vocabulary of `definition`, the tokenizer.json in `source`. Raises RecipeError when `size` is too small."""
    tokenizer = _tokenizer(definition)
    found = pieces.of(definition, tokenizer)
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    names = {i: entry for entry, i in vocab.items()}
    named = set().union(*(renumber.named_in(json.loads(path.read_text("utf-8"))) for path in source.glob("*config.json")))
    special = renumber.always_kept(definition) | (named & names.keys())

    used = {i for text in _chunks(texts) for encoding in tokenizer.encode_batch(text) for i in encoding.ids}
    used |= {vocab[part] for i in used for part in found.needs(names[i])}
    spelling = {vocab[entry] for entry in found.spelling}
    kept = special | used | spelling
    if size and size < len(kept):
        raise RecipeError(
            f"{size:,} entries are too few: this vocabulary needs {len(kept):,} for these texts",
            details=[
                f"{len(special):,} special, {len(used - special):,} in the texts, {len(spelling - used - special):,} to spell other words"
            ],
            mend=f"--set compress.vocabulary={len(kept)}, or more",
        )
    frequency: set[int] = set()
    for entry in found.frequent:
        more = {vocab[part] for part in (entry, *found.needs(entry))} - kept - frequency
        if len(kept) + len(frequency) + len(more) > size:
            break
        frequency |= more
    return Selection(frozenset(special), frozenset(used - special), frozenset(spelling - used - special), frozenset(frequency))


def changed(old: Any, new: Any, texts: Sequence[str]) -> float:
    """The share of `texts` that two `tokenizers.Tokenizer` cut into different tokens."""
    differ = 0
    for chunk in _chunks(texts):
        pairs = zip(old.encode_batch(chunk), new.encode_batch(chunk), strict=True)
        differ += sum(a.tokens != b.tokens for a, b in pairs)
    return differ / len(texts) if texts else 0.0


def unknown(tokenizer: Any, token: str | None, texts: Sequence[str]) -> float:
    """The share of the characters of `texts` that end in the unknown `token`."""
    unknown_id = None if token is None else tokenizer.token_to_id(token)
    lost = sum(
        end - start
        for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)
        for i, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
        if i == unknown_id
    )
    return lost / max(1, sum(map(len, texts)))


def unknown_token(definition: Mapping[str, Any]) -> str | None:
    """The token for what has no entry; None where everything can be spelled."""
    model = definition["model"]
    token: str | None = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else model.get("unk_token")
    return token


def _definition(folder: Path) -> dict[str, Any]:
    """tokenizer.json as transformers loads it. Raises ModelError."""
    from transformers import AutoTokenizer

    mend = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes one, where the model has a fast tokenizer"
    if not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder} has no tokenizer.json", mend=mend)
    loaded = AutoTokenizer.from_pretrained(folder)
    if not loaded.is_fast:
        raise ModelError(f"{folder} loads as {type(loaded).__name__}, which runs in Python only, not in an app", mend=mend)
    definition: dict[str, Any] = json.loads(loaded.backend_tokenizer.to_str())
    return definition


def _tokenizer(definition: Mapping[str, Any]) -> Any:
    """The `tokenizers.Tokenizer` of a definition, without truncation and padding."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(json.dumps({**definition, "truncation": None, "padding": None}))


def _load(folder: Path) -> Any:
    import transformers

    name = (transformers.AutoConfig.from_pretrained(folder).architectures or ["AutoModel"])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise ModelError(f"{folder} is a {name}, which transformers {transformers.__version__} does not know")
    return kind.from_pretrained(folder, dtype="auto").eval()


def _logits(model: Any, rows: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """What `model` says about each row of ids alone, float32: logits, or hidden states where it has no head."""
    import torch

    for row in filter(None, rows):
        feeds = {"input_ids": torch.tensor([row]), "attention_mask": torch.ones((1, len(row)), dtype=torch.int64)}
        if model.config.is_encoder_decoder:
            feeds["decoder_input_ids"] = feeds["input_ids"]
        with torch.no_grad():
            yield model(**feeds)[0].float().numpy()


def _write_settings(source: Path, definition: Mapping[str, Any], ids: Mapping[int, int], out: Path) -> None:
    """tokenizer.json and the settings beside it, renumbered. The files of slow tokenizers (vocab.txt, merges.txt, ...) are left out."""
    write_json(out / "tokenizer.json", definition)
    if (source / "tokenizer_config.json").is_file():
        shutil.copyfile(source / "tokenizer_config.json", out / "tokenizer_config.json")
    for path in out.glob("*config.json"):
        write_json(path, renumber.settings(json.loads(path.read_text("utf-8")), ids))
    for path in (found for pattern in KEPT_FILES for found in source.glob(pattern)):
        shutil.copyfile(path, out / path.name)


def _difference(before: Sequence[np.ndarray], after: Sequence[np.ndarray], ids: Mapping[int, int]) -> float:
    """The largest difference of the logits, relative to the largest of them; over a vocabulary: of the entries that stayed."""
    order = sorted(ids, key=ids.__getitem__)
    worst = 0.0
    for a, b in zip(before, after, strict=True):
        same = a if a.shape == b.shape else a[..., order]
        worst = max(worst, float(np.nan_to_num(np.abs(same - b), nan=np.inf).max() / max(1e-9, np.abs(same).max())))
    return worst


def _keep_promise(facts: Mapping[str, Any], old: Any, new: Any, ids: Mapping[int, int]) -> None:
    wrong = []
    if new.get_vocab() != {entry: ids[i] for entry, i in old.get_vocab().items() if i in ids}:
        wrong.append("the new tokenizer numbers its entries in another way than the embedding")
    if facts["texts_changed"]:
        wrong.append(f"{facts['texts_changed']:.2%} of the texts are cut into other tokens")
    if facts["unknown"] > facts["unknown_before"]:
        wrong.append(f"unknown characters of general text rose from {facts['unknown_before']:.2%} to {facts['unknown']:.2%}")
    if facts["max_logit_difference"] > TOLERANCE:
        wrong.append(f"logits differ by {facts['max_logit_difference']:.2g} (allowed: {TOLERANCE})")
    if wrong:
        raise StageError("this vocabulary cannot be pruned", details=wrong, mend="leave the vocabulary whole, and report the model's name")


def _chunks(texts: Sequence[str], size: int = 1000) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])
