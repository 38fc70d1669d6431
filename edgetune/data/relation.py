"""A text with two entities marked -> the same with <e1>...</e1> and <e2>...</e2>.

Read as markers: <e1> and <e2> (SemEval-2010 task 8), or [[...]] for the first entity and <<...>> for the second.
"""

from __future__ import annotations

import re

_STYLES = (
    (re.compile(r"(</?)e([12])>", re.IGNORECASE), {"<": "open", "</": "close"}),
    (re.compile(r"\[\[|\]\]|<<|>>"), {"[[": ("open", "1"), "]]": ("close", "1"), "<<": ("open", "2"), ">>": ("close", "2")}),
)
_NEEDED = ([("open", "1"), ("close", "1"), ("open", "2"), ("close", "2")], [("open", "2"), ("close", "2"), ("open", "1"), ("close", "1")])


def read(text: str) -> tuple[str, str]:
    """(text with <e1>, </e1>, <e2>, </e2> and no blanks inside of them, what is wrong or "")."""
    tagged, brackets = _STYLES
    found = [(match, (tagged[1][match[1]], match[2])) for match in tagged[0].finditer(text)]
    if not found:
        found = [(match, brackets[1][match[0]]) for match in brackets[0].finditer(text)]  # type: ignore[misc]
    if not found:
        return text, "no marked entities"
    if [marker for _, marker in found] not in _NEEDED:
        return text, "markers that are not one pair of entities"
    out, at = [], 0
    for (opening, (_, number)), (closing, _) in zip(found[::2], found[1::2], strict=True):
        inner = text[opening.end() : closing.start()].strip()
        if not inner:
            return text, "a marked entity that is empty"
        out += [text[at : opening.start()], f"<e{number}>{inner}</e{number}>"]
        at = closing.end()
    return "".join(out) + text[at:], ""
