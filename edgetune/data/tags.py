"""Tags per word, in any of the schemes that corpora use -> BIO2.

    BIO2 (IOB2)      B- opens every entity, I- continues it                 Tjong Kim Sang and Veenstra, EACL 1999
    IOB1             I- opens and continues; B- only where two entities of a type touch
    IO               I- only, or types without a prefix: words of one type that touch are one entity
    BIOES            B- I- E- for entities of several words, S- for one     also with M- for I- (BMES), W- or U- for S-
    BILOU            the same with L- for E- and U- for S-                  Ratinov and Roth, CoNLL 2009
    one per word     types without a prefix and no O at all, such as parts of speech: every word stands alone

The scheme is told from all tags of a file. A tag that the scheme does not allow where it stands is a problem of its row; it is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise

OUTSIDE = "O"
ONLY_TYPE = "entity"  # where the tags are B, I and O without a type
_TAG = re.compile(r"([BIESLUMW])[-_](\S.*)")
_ROLES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}

Convert = Callable[[Sequence[str]], tuple[list[str], str]]


def looks_like_tag(text: str) -> bool:
    return text == OUTSIDE or _TAG.fullmatch(text) is not None


def detect(rows: Iterable[Sequence[str]]) -> str:
    """The scheme of a file, from all of its tags: a name of `SCHEMES`."""
    prefixes: set[str] = set()
    bare = outside = opened_inside = opened_apart = False
    for tags in rows:
        for (before, before_kind), (role, kind) in pairwise([("O", ""), *map(_parts, tags)]):
            if role == "O":
                outside = True
            elif role == "?":
                bare = True
            else:
                prefixes.add(role)
                touches = before in "BI" and before_kind == kind
                opened_inside |= role == "I" and not touches
                opened_apart |= role == "B" and not touches
    if bare and not prefixes:
        return "IO" if outside else "one tag a word"
    if prefixes & {"E", "S"}:
        return "BIOES"
    if bare or not opened_inside or opened_apart:
        return "BIO2"  # an I- that opens nothing is then a mistake
    return "IOB1" if "B" in prefixes else "IO"


def untyped(rows: Iterable[Sequence[str]]) -> bool:
    """Whether every tag is B, I, O (E, S, ...) alone, without a type."""
    found = {tag for tags in rows for tag in tags}
    return "B" in found and found <= {OUTSIDE, *_ROLES}


def with_type(tags: Sequence[str]) -> list[str]:
    """B, I, O alone -> with the one type that they leave out."""
    return [tag if tag == OUTSIDE else f"{tag}-{ONLY_TYPE}" for tag in tags]


def entities(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """BIO2 tags -> (first word, word after the last, type) of each entity, in order."""
    found: list[tuple[int, int, str]] = []
    for i, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append((i, i + 1, tag[2:]))
        elif tag.startswith("I-"):
            start, _, kind = found.pop()
            found.append((start, i + 1, kind))
    return found


def spell(count: int, entities: Iterable[tuple[int, int, str]]) -> list[str]:
    """(first word, word after the last, type) of entities that do not overlap -> BIO2 tags of `count` words."""
    tags = [OUTSIDE] * count
    for start, end, kind in entities:
        tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return tags


def listed(types: Iterable[str]) -> list[str]:
    """Entity types -> every BIO2 tag: O, then B- and I- of each type, sorted."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in sorted(set(types)) for prefix in "BI")]


def place(words: Sequence[str], text: str | None) -> tuple[str, list[list[int]], str]:
    """(text, [start, end] of each word in it, problem). Without a `text` it is the words with one space between."""
    if text is None:
        text = " ".join(words)
    found: list[list[int]] = []
    at = 0
    for number, word in enumerate(words, 1):
        start = text.find(word, at)
        if start < 0 or text[at:start].strip():
            return text, [], f"token {number} is not next in the text"
        at = start + len(word)
        found.append([start, at])
    if text[at:].strip():
        return text, [], "the text goes on after the last token"
    return text, found, ""


def _parts(tag: str) -> tuple[str, str]:
    """(role, type): O, B, I, E or S; "?" for a type without a prefix."""
    if tag == OUTSIDE:
        return "O", ""
    match = _TAG.fullmatch(tag)
    return (_ROLES[match[1]], match[2]) if match else ("?", tag)


def _begun(tags: Sequence[str], strict: bool) -> tuple[list[str], str]:
    """An I- that continues nothing is a problem (BIO2: `strict`), or begins an entity (IOB1)."""
    out: list[str] = []
    before = ("O", "")
    for number, tag in enumerate(tags, 1):
        role, kind = _parts(tag)
        if role not in "OBI":
            return [], f'tag {number} is "{tag[:40]}", neither O nor B- nor I-'
        continues = role == "I" and before[0] != "O" and before[1] == kind
        if role == "I" and not continues and strict:
            return [], f'tag {number} is "{tag[:40]}", which continues nothing'
        out.append(tag if role == "O" else f"{'I' if continues else 'B'}-{kind}")
        before = role, kind
    return out, ""


def _io(tags: Sequence[str]) -> tuple[list[str], str]:
    kinds = [_parts(tag)[1] for tag in tags]
    return [f"{'I' if kind == before else 'B'}-{kind}" if kind else OUTSIDE for before, kind in pairwise(["", *kinds])], ""


def _alone(tags: Sequence[str]) -> tuple[list[str], str]:
    return [f"B-{tag}" for tag in tags], ""


def _bioes(tags: Sequence[str]) -> tuple[list[str], str]:
    out: list[str] = []
    inside = ""  # the type of the entity that is open
    for number, tag in enumerate(tags, 1):
        role, kind = _parts(tag)
        if role == "?":
            return [], f'tag {number} is "{tag[:40]}", which has no B-, I-, E- or S-'
        if inside and (role not in "IE" or kind != inside):
            return [], f'tag {number} is "{tag[:40]}", but the entity before it has no end'
        if not inside and role in "IE":
            return [], f'tag {number} is "{tag[:40]}", which continues nothing'
        out.append(OUTSIDE if role == "O" else f"{'I' if role in 'IE' else 'B'}-{kind}")
        inside = kind if role in "BI" else ""
    return ([], "the last entity has no end") if inside else (out, "")


SCHEMES: dict[str, Convert] = {
    "BIO2": partial(_begun, strict=True),
    "IOB1": partial(_begun, strict=False),
    "IO": _io,
    "BIOES": _bioes,
    "one tag a word": _alone,
}
