"""Words with a tag each, and the entities that the tags spell (BIO2): what the tasks with tags have in common.

A word is what the data calls one. An app gives a text without words: there a word is what `WORD` matches. So both are learned. The first
sub-word of a word decides its tag; in training the first sub-word of every match inside a word is taught too, a later one as what continues
the first (B-x, then I-x; O, then O). All other sub-words are not learned (-100).

Entities are counted as seqeval counts them (as the scorer of CoNLL-2000 did): right when type, start and end are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.errors import DataError
from edgetune.tasks import Encoded, balance, pad, padded, tokens
from edgetune.tasks.confidence import softmax

if TYPE_CHECKING:
    import torch

OUTSIDE = "O"
IGNORED = -100  # the target of what is not learned
ALONE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"  # kana and ideographs: no blanks between words
WORD = re.compile(rf"[{ALONE}]|[^\W{ALONE}]+|[^\w\s]")  # the same in edgetune/runtime/answers/entities.py
SURELY_OUTSIDE = 1e-4  # how far O is over the rest for a word that the model did not see

Entity = tuple[str, int, int]  # type, first word, last word


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str]) -> Encoded:
    """Rows with `text`, `words` and `tags` -> examples with

        input_ids  [s]         labels  [s] what each token is taught, an index of `labels` or -100
        words      [words]     the token that decides, -1 where the word has none (cut off, or of characters that the tokenizer drops)
        tags       [words]     indices of `labels`          names   `labels`

    Rows without any such token are left out. Raises DataError for a tag that is not in `labels`.
    """
    names = list(labels)
    index = {name: i for i, name in enumerate(names)}
    unknown = sorted({tag for row in rows for tag in row["tags"]} - index.keys())
    if unknown:
        raise DataError(
            f"tags that the model does not know: {', '.join(unknown[:5])}", mend="give rows with the tags that it was trained on"
        )
    examples, cut = tokens(tokenizer, [row["text"] for row in rows], max_length=max_length)
    offsets = tokenizer([row["text"] for row in rows], truncation=True, max_length=max_length, return_offsets_mapping=True)
    found: list[dict[str, Any]] = []
    left_out: list[tuple[int, str]] = []
    lost = 0
    for number, (row, example, spans) in enumerate(zip(rows, examples, offsets["offset_mapping"] if rows else (), strict=True)):
        deciding = first_tokens(spans, row["words"])
        if max(deciding, default=-1) < 0:
            left_out.append((number, "no word of it is left as a token"))
            continue
        lost += sum(token < 0 for token in deciding)
        found.append(
            {
                **example,
                "labels": [index[tag] if tag else IGNORED for tag in _taught(row, spans)],
                "words": deciding,
                "tags": [index[tag] for tag in row["tags"]],
                "names": names,
            }
        )
    return Encoded(found, cut, left_out, lost)


def first_tokens(offsets: Sequence[Sequence[int]], places: Sequence[Sequence[int]]) -> list[int]:
    """The first token of each of `places` ([start, end] in characters, in order), -1 where there is none. `offsets`: the same of tokens."""
    found = []
    at = 0
    for start, end in places:
        while at < len(offsets) and (offsets[at][1] <= start or offsets[at][0] == offsets[at][1]):
            at += 1
        found.append(at if at < len(offsets) and offsets[at][0] < end else -1)
    return found


def _taught(row: Mapping[str, Any], offsets: Sequence[Sequence[int]]) -> list[str]:
    """The tag that each token is taught, "" for none: the first token of each word, and of each piece that an app sees in the word of an entity.

    The pieces of other words are not taught: in a corpus with links they would teach that most words are outside (on WNUT-17 that costs
    five points of F1, and two to four where an app cuts the words).
    """
    pieces = [(list(match.span()), number) for number, place in enumerate(row["words"]) for match in WORD.finditer(row["text"], *place)]
    taught = [""] * len(offsets)
    before = -1
    for (_, number), token in zip(pieces, first_tokens(offsets, [place for place, _ in pieces]), strict=True):
        if token < 0:
            continue
        tag, first = row["tags"][number], number != before
        if not taught[token] and (first or tag != OUTSIDE):
            taught[token] = tag if first else f"I-{tag[2:]}"
        before = number
    return taught


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    return {**padded(examples, pad_id), "labels": pad([example["labels"] for example in examples], IGNORED)}


def loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float, weights: np.ndarray | None) -> torch.Tensor:
    """Cross-entropy with label smoothing, the mean over the tokens that are learned. `logits` [b, s, tags], `labels` [b, s], `weights` [tags]."""
    from torch.nn.functional import cross_entropy

    learned = labels != IGNORED
    each = cross_entropy(logits[learned].float(), labels[learned], reduction="none", label_smoothing=smoothing)
    return (each if weights is None else each * balance.of(weights, labels[learned])).mean()


def weights(examples: Sequence[Mapping[str, Any]], count: int) -> np.ndarray:
    """[count] of the tags of the tokens that are learned."""
    return balance.weights(np.array([tag for example in examples for tag in example["labels"] if tag != IGNORED]), count)


def of_words(logits: np.ndarray, example: Mapping[str, Any]) -> np.ndarray:
    """[s, tags] of the tokens of a row -> [words, tags] float32; a word without a token is outside."""
    unseen = np.zeros((1, logits.shape[-1]), dtype=np.float32)
    unseen[0, example["names"].index(OUTSIDE)] = SURELY_OUTSIDE
    return np.concatenate([logits, unseen])[[token if token >= 0 else len(logits) for token in example["words"]]]


def entities(tags: Sequence[str]) -> set[Entity]:
    """As seqeval reads them: an I- that nothing opens, or of another type than what is open, opens an entity."""
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities(list(tags)))


def counts(told: Sequence[str], right: Sequence[str]) -> tuple[int, int, int]:
    """(entities that are right, entities told, entities that are there) of one row's tags."""
    a, b = entities(told), entities(right)
    return len(a & b), len(a), len(b)


def shares(found: np.ndarray) -> dict[str, float]:
    """[n, 3] of `counts` -> f1, precision, recall over all rows (micro average)."""
    hits, told, there = (float(total) for total in found.sum(axis=0))
    return {
        "f1": 2 * hits / (told + there) if told + there else 0.0,
        "precision": hits / told if told else 0.0,
        "recall": hits / there if there else 0.0,
    }


def log_loss(logits: np.ndarray, target: np.ndarray) -> float:
    """Mean negative log-likelihood of `target` [m] under `logits` [m, classes]."""
    chances = softmax(logits)[np.arange(len(target)), target]
    return float(-np.log(np.maximum(chances, np.finfo(np.float64).tiny)).mean())


def report(told: Sequence[Sequence[str]], right: Sequence[Sequence[str]], types: Sequence[str]) -> list[dict[str, Any]]:
    """Per type of entity: precision, recall, f1, support, and the type that its entities are most often taken for, by the tags of all rows."""
    from seqeval.metrics import classification_report

    every = classification_report([list(row) for row in right], [list(row) for row in told], output_dict=True, zero_division=0)
    taken: dict[str, Counter[str]] = {kind: Counter() for kind in types}
    for answer, truth in zip(told, right, strict=True):
        there = {(start, end): kind for kind, start, end in entities(truth)}
        for kind, start, end in entities(answer):
            if (meant := there.get((start, end), kind)) != kind:
                taken[meant][kind] += 1
    nothing = {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}
    return [
        {
            "label": kind,
            **{name: float(every.get(kind, nothing)[name]) for name in ("precision", "recall")},
            "f1": float(every.get(kind, nothing)["f1-score"]),
            "support": int(every.get(kind, nothing)["support"]),
            "taken_for": taken[kind].most_common(1)[0][0] if taken[kind] else None,
        }
        for kind in types
    ]


def types(labels: Sequence[str]) -> list[str]:
    """The types of entities among tags, in their order."""
    return list(dict.fromkeys(label[2:] for label in labels if label.startswith(("B-", "I-"))))


def rows_of(values: Sequence[Any], lines: np.ndarray) -> list[list[Any]]:
    """Values of all words -> of each row."""
    ends = lines.cumsum()
    return [list(values[end - count : end]) for count, end in zip(lines.tolist(), ends.tolist(), strict=True)]
