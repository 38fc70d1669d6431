"""The answer to a question, as it stands in a context (SQuAD: arXiv:1606.05250; with questions that have none: arXiv:1806.03822).

A context that is too long for the model is read in windows that overlap; an example is a window, a score a question. The first token
stands for "no answer here": for windows without the answer, and for questions that have none. run.py reads and decides the same way
(runtime/answers/question_answering.py).
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.tasks import Encoded, Forward, Scores, batches, inputs, padded

if TYPE_CHECKING:
    import torch

    from edgetune.recipe import Recipe

STRIDE = 128  # tokens that a window shares with the one before, where they are less than half of it
LONGEST = 30  # tokens of an answer
BEST = 20  # spans of a window that are looked at
EVAL_BATCH = 16
ALONE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd]")  # scripts without blanks between words
EXACT, F1_ANSWERED, EXACT_ANSWERED, GAP, ANSWERABLE, LOSS = range(6)  # columns of `Scores.extra`


def encode(rows: Sequence[Mapping[str, Any]], tokenizer: Any, *, max_length: int, labels: Sequence[str] = ()) -> Encoded:
    """Rows with `question`, `context` and `answers` [[start, text], ...] -> an example for each window of the context.

    An example has `input_ids`, perhaps `token_type_ids`, `labels` [first, last token of the first answer; 0, 0 where it is not in the window],
    `item` (index of the row), `may_be_none` (whether any of the rows has no answer), `first` (place of the window's first token), `offsets` [[start, end], ...] of its tokens in `context`, `question`, `answers`
    (texts), and `by_character` (how words are counted). Questions that were cut are `cut`; a row whose context has no token is left out.
    """
    examples: list[dict[str, Any]] = []
    left_out: list[tuple[int, str]] = []
    cut = 0
    if not rows:
        return Encoded([])
    texts = ([row[name] for row in rows] for name in ("question", "context"))
    found = tokenizer(*texts, truncation=False, verbose=False, return_offsets_mapping=True)
    none = not all(row["answers"] for row in rows)
    names = ["input_ids", *(["token_type_ids"] if "token_type_ids" in found else [])]
    for i, row in enumerate(rows):
        before, windows, after, spare = _windows(found.sequence_ids(i), max_length)
        cut += spare
        if not windows:
            left_out.append((i, f"no token of the context fits beside the question into {max_length} tokens"))
        offsets = found["offset_mapping"][i]
        given = {
            "item": i,
            "first": len(before),
            "question": row["question"],
            "context": row["context"],
            "answers": [text for _, text in row["answers"]],
            "by_character": bool(ALONE.search(row["question"])),
            "may_be_none": none,
        }
        for window in windows:
            places = [list(offsets[k]) for k in window]
            kept = [*before, *window, *after]
            ids = {name: [found[name][i][k] for k in kept] for name in names}
            examples.append({**ids, **given, "offsets": places, "labels": _labels(row["answers"], places, len(before))})
    return Encoded(examples, cut, left_out)


def collate(examples: Sequence[Mapping[str, Any]], pad_id: int) -> dict[str, np.ndarray]:
    """labels: [b, 2] int64, the first and the last token of the answer."""
    return {**padded(examples, pad_id), "labels": np.array([example["labels"] for example in examples], dtype=np.int64)}


def loss(outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor], smoothing: float = 0.0) -> torch.Tensor:
    """The mean of two cross-entropies, over real tokens only. start_logits, end_logits [b, s]. Places are not smoothed."""
    from torch.nn.functional import cross_entropy

    padding = batch["attention_mask"] == 0
    both = (outputs[name].float().masked_fill(padding, float("-inf")) for name in ("start_logits", "end_logits"))
    start, end = (cross_entropy(logits, batch["labels"][:, side]) for side, logits in enumerate(both))
    return (start + end) / 2


def score(forward: Forward, examples: Sequence[Mapping[str, Any]], pad_id: int, size: int = EVAL_BATCH) -> Scores:
    """One value a question, in their order: the F1 of the best span of all its windows, the largest over its answers.

    Where some of the questions that were encoded together have no answer, the first token may win over the best span; then the answer is none, right or wrong.
    `extra` [n, 6]: exact match; F1 and exact match if a span is answered whatever happens; how far the first token is over the best span;
    whether there is an answer; the loss, the mean over windows.
    """
    from scipy.special import log_softmax

    told: dict[int, list[tuple[float, int, int, float, float]]] = defaultdict(list)  # question -> (sum, start, end, sum of no answer, loss)
    of: dict[int, Mapping[str, Any]] = {example["item"]: example for example in examples}
    for index in batches(examples, size):
        batch = collate([examples[i] for i in index], pad_id)
        answer = forward(inputs(batch))
        for i, *both in zip(index, answer["start_logits"], answer["end_logits"], strict=True):
            example = examples[i]
            starts, ends = (np.asarray(side, dtype=np.float64)[: len(example["input_ids"])] for side in both)
            lost = -sum(log_softmax(side)[place] for side, place in zip((starts, ends), example["labels"], strict=True)) / 2
            window = slice(example["first"], example["first"] + len(example["offsets"]))
            total, start, end = _best(example["context"], example["offsets"], starts[window], ends[window])
            told[example["item"]].append((total, start, end, float(starts[0] + ends[0]), float(lost)))
    extra = np.zeros((len(of), 6))
    for row, (item, example) in zip(extra, sorted(of.items()), strict=True):
        total, start, end, *_ = min(told[item], key=lambda one: (-one[0], one[1:3]))
        row[GAP] = min(one[3] for one in told[item]) - total
        row[ANSWERABLE], row[LOSS] = bool(example["answers"]), np.mean([one[4] for one in told[item]])
        if example["answers"]:
            pairs = [compare(example["context"][start:end], right, example["by_character"]) for right in example["answers"]]
            row[F1_ANSWERED], row[EXACT_ANSWERED] = max(f1 for f1, _ in pairs), max(exact for _, exact in pairs)
    value, extra[:, EXACT] = _decided(extra, 0.0 if examples[0]["may_be_none"] else np.inf)
    return Scores(value, np.ones(len(value)), extra=extra)


def metrics(scores: Scores, labels: Sequence[str] = ()) -> dict[str, float]:
    """f1, exact_match (SQuAD's, fractions), loss; with questions that have no answer also has_answer_f1 and no_answer_accuracy."""
    assert scores.extra is not None
    answerable = scores.extra[:, ANSWERABLE] > 0
    found = {
        "f1": float(scores.value.mean()),
        "exact_match": float(scores.extra[:, EXACT].mean()),
    }
    if not np.isnan(scores.extra[:, LOSS]).any():  # of a model
        found["loss"] = float(scores.extra[:, LOSS].mean())
    return found | _apart(scores.value, answerable)


def calibrate(scores: Scores, recipe: Recipe) -> dict[str, Any]:
    """no_answer_above: the answer is none where the first token is over the best span by more; the best F1 on these questions. None: never."""
    assert scores.extra is not None
    gap, answerable = scores.extra[:, GAP], scores.extra[:, ANSWERABLE] > 0
    if answerable.all():
        return {"no_answer_above": None, "chosen_by": "every question of validation has an answer"}
    order = np.argsort(gap, kind="stable")
    sorted_gap = gap[order]
    gained = np.where(answerable, scores.extra[:, F1_ANSWERED], -1.0)[order].cumsum()  # by answering the first k + 1, instead of none
    parted = np.append(sorted_gap[:-1] < sorted_gap[1:], True)  # no threshold stands between equal ones
    best = int(np.where(parted, gained, -np.inf).argmax())
    if gained[best] <= 0:
        threshold = float(sorted_gap[0]) - 1
    elif best + 1 == len(gap):
        threshold = float(sorted_gap[best]) + 1
    else:
        below, above = sorted_gap[best : best + 2].tolist()
        middle = (below + above) / 2
        threshold = middle if middle < above else below
    return {
        "no_answer_above": threshold,
        "chosen_by": f"validation: the best F1 on {len(gap)} questions, {int((~answerable).sum())} without an answer",
    }


def calibrated(scores: Scores, facts: Mapping[str, Any]) -> dict[str, float]:
    """f1 and exact_match (and both kinds of questions apart) with the threshold of `calibrate`."""
    assert scores.extra is not None
    threshold = np.inf if facts["no_answer_above"] is None else facts["no_answer_above"]
    value, exact = _decided(scores.extra, threshold)
    return {"f1": float(value.mean()), "exact_match": float(exact.mean())} | _apart(value, scores.extra[:, ANSWERABLE] > 0)


def compare(said: str, right: str, by_character: bool) -> tuple[float, float]:
    """(F1, exact match) of an answer, as SQuAD's evaluation script has them; by character: as MLQA's for Chinese (arXiv:1910.07475)."""
    ours, theirs = (words(text, by_character) for text in (said, right))
    common = sum((Counter(ours) & Counter(theirs)).values())
    f1 = 2 * common / (len(ours) + len(theirs)) if ours and theirs else float(ours == theirs)
    return f1, float(ours == theirs)


def words(text: str, by_character: bool) -> list[str]:
    """The words of an answer that count: in lower case, without punctuation and English articles.

    By character: every character of scripts without blanks is a word, articles stay, and all of Unicode's punctuation goes.
    """
    text = text.lower()
    if by_character:
        text = "".join(c for c in text if c not in string.punctuation and not unicodedata.category(c).startswith("P"))
        return ALONE.sub(r" \g<0> ", text).split()
    text = text.translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def _windows(parts: Sequence[int | None], max_length: int) -> tuple[list[int], list[list[int]], list[int], bool]:
    """Places of a row's tokens: (before the context, each window, after it; whether the question was cut to half of the model's length).

    `parts`: 0 where a token is of the question, 1 of the context, None for special ones.
    """
    inside = [i for i, part in enumerate(parts) if part == 1]
    asked = [i for i, part in enumerate(parts) if part == 0]
    if not inside:
        return [], [], [], False
    spare = set(asked[max(1, len(asked) - max(0, inside[0] - max_length // 2)) :])
    before = [i for i in range(inside[0]) if i not in spare]
    after = list(range(inside[-1] + 1, len(parts)))
    room = max_length - len(before) - len(after)
    if room < 1:
        return before, [], after, bool(spare)
    step = room - min(STRIDE, room // 2)
    last = max(0, -(-(len(inside) - room) // step))
    return before, [inside[start : start + room] for start in range(0, last * step + 1, step)], after, bool(spare)


def _labels(answers: Sequence[tuple[int, str]], offsets: Sequence[Sequence[int]], first: int) -> list[int]:
    """[first, last] token of the first answer; [0, 0] where there is none, or not all of it is in the window."""
    if not answers:
        return [0, 0]
    start, text = answers[0]
    end = start + len(text)
    inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
    if not inside or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return [0, 0]
    return [first + inside[0], first + inside[-1]]


def _best(context: str, offsets: Sequence[Sequence[int]], starts: np.ndarray, ends: np.ndarray) -> tuple[float, int, int]:
    """(sum of both logits, start, end in characters) of the best span of a window, at most LONGEST tokens."""
    count = len(starts)
    both = np.full((min(LONGEST, count), count), -np.inf)  # by tokens after the first, and the first
    for more, line in enumerate(both):
        line[: count - more] = starts[: count - more] + ends[more:]
    flat = both.ravel()
    places = np.argpartition(-flat, BEST)[:BEST] if len(flat) > BEST else np.arange(len(flat))
    found = []
    for place in places[np.isfinite(flat[places])]:
        more, i = divmod(int(place), count)
        text = context[offsets[i][0] : offsets[i + more][1]]
        if text.strip():
            start = offsets[i][0] + len(text) - len(text.lstrip())
            found.append((-float(flat[place]), start, start + len(text.strip())))
    total, start, end = min(found, default=(np.inf, 0, 0))
    return -float(total), start, end


def _decided(extra: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(F1, exact match) [n] each, when "none" is answered where the first token is over the best span by more than `threshold`."""
    none, right = extra[:, GAP] > threshold, extra[:, ANSWERABLE] == 0
    return tuple(np.where(none, right.astype(np.float64), extra[:, column]) for column in (F1_ANSWERED, EXACT_ANSWERED))  # type: ignore[return-value]


def _apart(value: np.ndarray, answerable: np.ndarray) -> dict[str, float]:
    if answerable.all():
        return {}
    has = float(value[answerable].mean()) if answerable.any() else 0.0
    return {"has_answer_f1": has, "no_answer_accuracy": float(value[~answerable].mean())}
