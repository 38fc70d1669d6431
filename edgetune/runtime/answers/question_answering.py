"""The answer to a question, as it stands in a context; a long context is read in windows that overlap."""

from __future__ import annotations

from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .probability import softmax

WHOLE = True
STRIDE = 128  # tokens that a window shares with the one before, where they are less than half of it
LONGEST = 30  # tokens of an answer
BEST = 20  # answers that share the probability
SHOWN = 3


def read(bundle: Any, item: Mapping[str, str]) -> tuple[list[dict[str, list[int]]], dict[str, Any]]:
    """A row for each window of the context. A question of more than half of `max_length` is cut."""
    row, found = bundle.tokenized(item)
    inside = [i for i, part in enumerate(found.sequence_ids) if part == 1]
    if not inside:
        raise bundle.error("nothing to read: the context has no tokens")
    asked = [i for i, part in enumerate(found.sequence_ids) if part == 0]
    spare = set(asked[max(1, len(asked) - max(0, inside[0] - bundle.max_length // 2)) :])
    before = [i for i in range(inside[0]) if i not in spare]
    after = list(range(inside[-1] + 1, len(found.ids)))
    room = bundle.max_length - len(before) - len(after)
    if room < 1:
        raise bundle.error(f"the question leaves no room for a context in the {bundle.max_length} tokens that this model reads")
    windows = [inside[start : start + room] for start in range(0, len(inside), room - min(STRIDE, room // 2))]
    last = next(i for i, window in enumerate(windows) if window[-1] == inside[-1])
    rows = [{name: [ids[i] for i in (*before, *window, *after)] for name, ids in row.items()} for window in windows[: last + 1]]
    offsets = [[found.offsets[i] for i in window] for window in windows[: last + 1]]
    return rows, {"context": item["context"], "first": len(before), "windows": offsets, "cut": bool(spare)}


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], kept: Mapping[str, Any]) -> dict[str, Any]:
    """`answer` (None: there is none), `start`, `end` (characters), `score`, `best` (the three likeliest answers), `cut`.

    As transformers' example script for SQuAD has it: the sum of both logits decides, over all windows; the score is the softmax over the
    best answers. There is no answer where the first token is over the best one by more than `no_answer_above` of edgetune.json.
    """
    first = kept["first"]
    sums: dict[tuple[int, int], float] = {}
    for offsets, starts, ends in zip(kept["windows"], outputs["start_logits"], outputs["end_logits"]):  # noqa: B905  (3.9)
        part = slice(first, first + len(offsets))
        for total, i, j in spans(starts[part].astype(np.float64), ends[part].astype(np.float64)):
            place = stripped(kept["context"], offsets[i][0], offsets[j][1])
            if place[0] < place[1]:
                sums[place] = max(total, sums.get(place, -np.inf))
    if not sums:
        raise bundle.error("nothing to read: the context has no words")
    best = sorted(sums, key=lambda span: (-sums[span], span))[:BEST]
    none = float((outputs["start_logits"][:, 0] + outputs["end_logits"][:, 0]).min())  # a window without the answer says little
    above = (bundle.facts["confidence"] or {}).get("no_answer_above")
    chances = softmax(np.array([sums[span] for span in best] + ([none] if above is not None else [])))
    answers = [
        {"answer": kept["context"][start:end], "start": start, "end": end, "score": float(chance)}
        for (start, end), chance in zip(best, chances)  # noqa: B905
    ]
    found = answers[0]
    if above is not None and none - sums[best[0]] > above:
        found = {"answer": None, "start": None, "end": None, "score": float(chances[-1])}
    return {**found, "best": answers[:SHOWN], "cut": kept["cut"]}


def spans(starts: np.ndarray, ends: np.ndarray) -> list[tuple[float, int, int]]:
    """The BEST spans of at most LONGEST tokens: (sum of both logits, first token, last token), in no order."""
    count = len(starts)
    both = np.full((min(LONGEST, count), count), -np.inf)  # by tokens after the first, and the first
    for more, line_of in enumerate(both):
        line_of[: count - more] = starts[: count - more] + ends[more:]
    flat = both.ravel()
    places = np.argpartition(-flat, BEST)[:BEST] if len(flat) > BEST else np.arange(len(flat))
    found = [(float(flat[place]), *divmod(int(place), count)) for place in places]
    return [(total, i, i + more) for total, more, i in found if total > -np.inf]


def stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """(start, end) without the blanks that some tokenizers count to a word."""
    part = text[start:end]
    return end - len(part.lstrip()), start + len(part.rstrip())


def line(found: Mapping[str, Any]) -> str:
    return f"{'(no answer)' if found['answer'] is None else found['answer']}\t{found['score']:.3f}"
