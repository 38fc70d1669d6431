"""What is wrong with the rows: every one that cannot be used, that occurs twice, or that occurs in two splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from edgetune import progress
from edgetune.data import classes
from edgetune.data.columns import WORDS, Columns, answer, key
from edgetune.data.table import Bad, lines
from edgetune.errors import DataError, did_you_mean
from edgetune.recipe import LABEL_NAMES_OUT_OF_SCOPE
from edgetune.tasks import Task

Rows = list[dict[str, Any]]
NEEDS = {
    "the wrong number of fields": 'a text with the delimiter in it must stand in double quotes: "yes, please"',
    "broken JSON": "each line of a JSONL file is one JSON object",
    "no object": 'a row is a JSON object, such as {"text": "...", "label": "..."}',
    "several labels": "any number of labels for a text is another task:  --task multi-label-classification",
    "a label never seen in train": "each label needs rows in train, and such that are in no other split",
    "an intent never seen in train": "each intent needs rows in train, and such that are in no other split",
    "an entity type never seen in train": "each entity type needs rows in train, and such that are in no other split",
}
PLURAL = ("tokens", "tags", "tasks", "spans", "labels", "answers", "messages")
MOST_GROUPS = 5  # kinds of problem that one error shows; with MOST_LINES each and the frame this stays under 20 lines
MOST_LINES = 3


def refuse(bad: Sequence[Bad], totals: Mapping[str, int], task: Task, columns: Columns | None) -> DataError:
    """One error for all bad rows: file by file, reason by reason, with row numbers. `totals`: file -> rows read."""
    bad = in_order(bad, totals)
    groups: dict[tuple[str, str], list[Bad]] = defaultdict(list)
    for one in bad:
        groups[one.file, one.reason].append(one)
    details: list[str] = []
    if len(groups) == 1:
        what = _sentence(bad, totals)
        details += _samples(bad, "", MOST_LINES)
    else:
        what = f"{len(bad):,} of {sum(totals.values()):,} rows cannot be used"
        for group in list(groups.values())[:MOST_GROUPS]:
            details += [_sentence(group, totals), *_samples(group, "  ", 1)]
        if len(groups) > MOST_GROUPS:
            details.append(f"and {len(groups) - MOST_GROUPS} more kinds of problem")
    reasons = dict.fromkeys(reason for _, reason in groups)
    details += [NEEDS[reason] for reason in reasons if reason in NEEDS]
    if columns is not None and any(reason not in NEEDS for reason in reasons):
        details.append(f"{_a(task.name)} row needs {' and '.join(map(_a, columns.names))}; read as {columns}")
    return DataError(what, details=details, mend="fix the rows, or drop them on purpose:  --set data.on_bad_row=drop")


def in_order(bad: Sequence[Bad], totals: Mapping[str, int]) -> list[Bad]:
    """`bad` by file, in the order of `totals`, and row."""
    place = {file: i for i, file in enumerate(totals)}
    return sorted(bad, key=lambda one: (place[one.file], one.row))


def out_of_scope(named: str, splits: Mapping[str, Rows]) -> str | None:
    """The label of rows that belong to no class: the one the recipe names, else one called out_of_scope or oos, which is said."""
    labels: list[str] = sorted({row["label"] for rows in splits.values() for row in rows})
    if named:
        if named not in labels:
            raise DataError(f'no row has the out-of-scope label "{named}"{did_you_mean(named, labels)}', mend="check data.out_of_scope")
        return named
    found = [label for label in labels if label.lower() in LABEL_NAMES_OUT_OF_SCOPE]
    if len(found) > 1:
        raise DataError(f"more than one label could mean out of scope: {', '.join(found)}", mend=f"--set data.out_of_scope={found[0]}")
    if found:
        progress.note(f'rows labelled "{found[0]}" belong to no class (data.out_of_scope)')
        return found[0]
    return None


def separate(splits: dict[str, Rows]) -> tuple[dict[str, int], list[Bad]]:
    """Rows of train that also occur in test or validation leave train; rows of test that occurred in train get `overlap`.

    Returns, for each pair of splits, how many rows of the second occur in the first, and the rows that left.
    """
    keys = {split: [key(row) for row in rows] for split, rows in splits.items()}
    counts: dict[str, int] = {}
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if first in splits and second in splits:
            known = set(keys[first])
            shared = [row for row, k in zip(splits[second], keys[second], strict=True) if k in known]
            counts[f"{first}_{second}"] = len(shared)
            if (first, second) == ("train", "test"):
                for row in shared:
                    row["overlap"] = True
    elsewhere: dict[str, str] = {k: split for split in ("validation", "test") for k in keys.get(split, ())}
    stay: Rows = []
    left: list[Bad] = []
    for row, k in zip(splits["train"], keys["train"], strict=True):
        if k in elsewhere:
            left.append(Bad(row["file"], row["row"], f"also in {elsewhere[k]}"))
        else:
            stay.append(row)
    splits["train"] = stay
    if left:
        shared_with = ", ".join(f"{counts[f'train_{s}']:,} of {s}" for s in ("validation", "test") if counts.get(f"train_{s}"))
        progress.warn(f"rows that also occur in train: {shared_with}; {len(left):,} row{'s' if len(left) > 1 else ''} left train")
    if counts.get("validation_test"):
        progress.warn(f"rows of test that also occur in validation: {counts['validation_test']:,}; kept in both, so choices have seen them")
    if not stay:
        raise DataError("no row is left in train: each also occurs in validation or test", mend="check that the files are not copies")
    return counts, left


def groups(splits: Mapping[str, Rows]) -> None:
    """Warn where splits that the user supplied share a group."""
    names = {split: {row["group"] for row in rows if "group" in row} for split, rows in splits.items()}
    for first, second in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if shared := names.get(first, set()) & names.get(second, set()):
            progress.warn(f"{first} and {second} share {len(shared):,} groups (data.group), so {second} is easier than new data will be")


def deduplicate(rows: Rows, column: str) -> tuple[Rows, list[Bad], list[list[dict[str, Any]]]]:
    """Rows of the same text and the same answer are kept once; returns (kept, left out, groups of one text with several answers).

    `column` is the one with the answer, "" where there is none.
    """
    what = WORDS.get(column, column)
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    by_text: dict[str, Rows] = defaultdict(list)
    left: list[Bad] = []
    for row in rows:
        k = key(row), answer(row)
        if k in seen:
            first = seen[k]
            of = "" if first["file"] == row["file"] else f" of {first['file']}"
            left.append(Bad(row["file"], row["row"], f"the same as row {first['row']}{of}"))
        else:
            seen[k] = row
            by_text[k[0]].append(row)
    several = [group for group in by_text.values() if len(group) > 1]
    if left:
        progress.note(
            f"{len(left):,} duplicate row{'s' if len(left) > 1 else ''} in train kept once (same text{f', same {what}' if what else ''})"
        )
    if several:
        at = [row["row"] for group in several for row in group]
        word = {"completion": "prompt", "answers": "question", "target": "source"}.get(column, "text")
        texts = f"{len(several):,} {word}s in train have" if len(several) > 1 else f"1 {word} in train has"
        tell = progress.note if column in ("completion", "target") else progress.warn
        tell(f"{texts} more than one {what} ({lines(len(at), at)}); all are kept")
    return list(seen.values()), left, several


def repeats(rows: Rows) -> int:
    """How many rows have a text that an earlier row has."""
    return len(rows) - len({key(row) for row in rows})


def unseen(splits: Mapping[str, Rows], column: str, scope: str | None, learned: Collection[str] = ()) -> list[Bad]:
    """Rows of validation and test with a label, intent or entity type that no row of train has, and that was not `learned` before."""
    known = {name for row in splits["train"] for name in classes.of(row, column)} | {scope, *learned}
    choices = sorted(name for name in known if name)
    found = [
        (row, name)
        for split in ("validation", "test")
        for row in splits.get(split, ())
        if (name := next((name for name in classes.of(row, column) if name not in known), None)) is not None
    ]
    hints = {name: did_you_mean(name, choices) for name in list(dict.fromkeys(name for _, name in found))[:20]}
    what = classes.CLASSED[column]
    reason = f"{_a(what)} never seen in train"
    return [Bad(row["file"], row["row"], reason, f'{what} "{name[:60]}"{hints.get(name, "")}') for row, name in found]


def _a(word: str) -> str:
    """'a text', 'an intent', 'tags'."""
    return word if word in PLURAL else f"a{'n' if word[0] in 'aeio' else ''} {word}"


def _sentence(group: Sequence[Bad], totals: Mapping[str, int]) -> str:
    count, one = len(group), group[0]
    has = "has" if count == 1 else "have"
    return f"{count:,} of {totals[one.file]:,} rows in {one.file} {has} {one.reason} ({lines(count, [bad.row for bad in group])})"


def _samples(group: Sequence[Bad], indent: str, most: int) -> list[str]:
    return [f"{indent}row {bad.row:,}: {bad.detail}" for bad in group[:most] if bad.detail]
