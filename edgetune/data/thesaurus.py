"""Words that mean the same, from a table of the user's own: no general thesaurus knows which words of a field may stand for each other."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgetune.data import read as files
from edgetune.data.speech import Edit
from edgetune.errors import DataError
from edgetune.recipe import Recipe

COLUMNS = ("word", "synonym")
EXCHANGED = 0.1  # of the words, one at least, as Wei and Zou have it (arXiv:1901.11196)
AROUND = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)  # what stands before and after a word: quotes, a comma


def read(recipe: Recipe) -> Mapping[str, Sequence[str]]:
    """Word in small letters -> its synonyms; empty where the recipe names no table. Raises DataError for a table that is none, with its rows."""
    if not recipe.augment.thesaurus:
        return {}
    path = Path(recipe.augment.thesaurus).expanduser()
    if not path.is_file():
        raise DataError(f"there is no file {path} (augment.thesaurus)", mend="give a table with the columns word and synonym")
    table = files.read(path, recipe.data.encoding)
    own = {name.strip().lower(): name for name in table.columns}
    if missing := [name for name in COLUMNS if name not in own]:
        raise DataError(
            f"{path.name} has no column {missing[0]}",
            details=[f"columns: {', '.join(table.columns)}"],
            mend="give a table with the columns word and synonym",
        )
    found: dict[str, list[str]] = {}
    for number, row in table.rows:
        word, synonym = (" ".join(str(row.get(own[name]) or "").split()) for name in COLUMNS)
        if not word or not synonym:
            raise DataError(f"{path.name}, row {number}: no {'synonym' if word else 'word'}", mend="mend that row, or leave it out")
        if len(word.split()) > 1:
            raise DataError(
                f'{path.name}, row {number}: "{word}" is several words', mend="one word in the column word; a synonym may be several"
            )
        if word.lower() != synonym.lower() and synonym not in found.setdefault(word.lower(), []):
            found[word.lower()].append(synonym)
    return found


def exchanged(words: Sequence[str], fixed: Sequence[bool], synonyms: Mapping[str, Sequence[str]], draw: random.Random) -> list[Edit]:
    """Some of the words that have synonyms, and are not `fixed`, as one of them, in order; what is around a word, and its first capital, stay."""
    parts = [found.groups() for found in map(AROUND.match, words) if found]  # which matches every text
    known = [i for i, (_, word, _) in enumerate(parts) if not fixed[i] and synonyms.get(word.lower())]
    edits = []
    for i in sorted(draw.sample(known, min(len(known), max(1, round(EXCHANGED * len(words)))))):
        before, word, after = parts[i]
        new = draw.choice(synonyms[word.lower()])
        edits.append((i, i + 1, before + (new[0].upper() + new[1:] if word[0].isupper() else new) + after))
    return edits
