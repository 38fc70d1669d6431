"""More rows to learn from, made of those that there are: with typing errors, as a speech recogniser hears them, with words left out, with other
entities. Each is marked (`augmented`: how it was made), stands in train alone, and has the answer of the row that it was made of.

All of it is drawn from the seed and the row itself, so the same rows give the same copies.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgetune import progress, tasks
from edgetune.data import noise, speech, thesaurus
from edgetune.data.columns import key
from edgetune.data.edits import Entities, Row, edited, entities_of, entity_spans, with_words
from edgetune.errors import RecipeError
from edgetune.recipe import Recipe
from edgetune.sections import AugmentKeys
from edgetune.table import pick
from edgetune.tasks import Task

MARK = "augmented"  # of a row that was made: by which augmentation
DROPPED = 0.1  # of the words, as Wei and Zou have it (arXiv:1901.11196)
SWAPPED = 0.5  # of the entities, but one at least
TRIES = 10  # draws for one copy, before a row is said to have no other
NOISY, NOISE_SEED = "typos", 0  # of noisy test rows: the same for every run


@dataclass(frozen=True)
class Words:
    """What stands in the place of words: `entities` of the same type, `synonyms` by the word."""

    entities: Entities
    synonyms: Mapping[str, Sequence[str]]


Alter = Callable[[Row, random.Random, Task, Words], Row]


@dataclass(frozen=True)
class Augmentation:
    """`alter`: a row to another with the same answer, with no words that came from elsewhere; none where new rows are made in another way.

    `tasks`: the only ones that it serves; none named: every one whose text is not itself what is learned.
    """

    name: str
    title: str
    when: str
    alter: Alter | None = None
    tasks: frozenset[str] = frozenset()

    def fits(self, task: Task) -> bool:
        return task.name in self.tasks if self.tasks else task.name != "fill-mask"


def _typos(row: Row, draw: random.Random, task: Task, known: Words) -> Row:
    return noise.with_question(row, partial(noise.mistype, draw=draw))


def _speech(row: Row, draw: random.Random, task: Task, known: Words) -> Row:
    return with_words(row, task, lambda words, fixed: speech.heard(words, fixed, draw))


def _word_dropout(row: Row, draw: random.Random, task: Task, known: Words) -> Row:
    def edits(words: Sequence[str], fixed: Sequence[bool]) -> list[speech.Edit]:
        free = [i for i, held in enumerate(fixed) if not held]
        most = min(len(free), len(words) - 1)  # a word stays
        out = draw.sample(free, min(most, max(1, round(DROPPED * len(words)))))
        return [(i, i + 1, "") for i in sorted(out)]

    return with_words(row, task, edits)


def _synonyms(row: Row, draw: random.Random, task: Task, known: Words) -> Row:
    return with_words(row, task, lambda words, fixed: thesaurus.exchanged(words, fixed, known.synonyms, draw))


def _entity_swap(row: Row, draw: random.Random, task: Task, known: Words) -> Row:
    spans = entity_spans(row["tags"])
    chosen = [span for span in spans if draw.random() < SWAPPED] or [draw.choice(spans)] if spans else []
    edits = []
    for first, last, kind in chosen:
        text, inner = draw.choice(known.entities[kind])
        edits.append((first, last, text, inner, [f"B-{kind}", *[f"I-{kind}"] * (len(inner) - 1)]))
    return edited(row, edits)


ONE_LABEL = frozenset({"text-classification", "relation-extraction", "multi-label-classification"})
AUGMENTATIONS: dict[str, Augmentation] = {
    one.name: one
    for one in (
        Augmentation(
            "typos", "one or two typing errors: a neighbour on the keyboard, a letter lost, doubled or swapped", "people type", _typos
        ),
        Augmentation(
            "speech",
            "no capitals, no punctuation, English words for others of the same sound, endings and short words lost, words joined or split",
            "people speak, and a recogniser writes",
            _speech,
        ),
        Augmentation(
            "word-dropout",
            "a tenth of the words left out (arXiv:1901.11196)",
            "few rows, telegraphic input",
            _word_dropout,
            frozenset(name for name, task in tasks.TASKS.items() if task.family == "encoder" and name != "fill-mask"),
        ),
        Augmentation(
            "synonyms",
            "a tenth of the words for others that mean the same, by a thesaurus of your own (augment.thesaurus; arXiv:1901.11196)",
            "words that users have for the same thing, and few rows that show them",
            _synonyms,
        ),
        Augmentation(
            "entity-swap",
            "entities replaced by others of their type in train (mention replacement, arXiv:2010.11683)",
            "few rows with entities, and open classes of them: names, titles, places",
            _entity_swap,
            frozenset({"token-classification", "intent-and-slots"}),
        ),
        Augmentation(
            "mixup",
            "word vectors and labels of two rows mixed in each step (arXiv:1905.08941)",
            "few rows; probabilities that should not be too sure",
            tasks=ONE_LABEL,
        ),
        Augmentation(
            "generation",
            "a local language model writes texts after rows of a label, and a first model must agree (arXiv:2104.08826)",
            "few rows, and a generator that knows the field",
            tasks=frozenset({"text-classification"}),
        ),
        Augmentation(
            "self-training",
            "a first model labels augment.unlabelled, and what it is sure of is learned too (pseudo-labels)",
            "many texts without labels",
            tasks=frozenset({"text-classification"}),
        ),
    )
}


def check(recipe: Recipe) -> None:
    """Raises RecipeError for what cannot be augmented so, before anything is written."""
    asked, task, plain = recipe.augment, tasks.get(recipe.task), AugmentKeys()
    for name in [*asked.kinds, *filter(None, [asked.noisy_test])]:
        one = pick(AUGMENTATIONS, name, "augmentation")
        if not one.fits(task):
            fitting = [name for name, other in AUGMENTATIONS.items() if other.fits(task)]
            raise RecipeError(f"augmentation {name} does not fit {task.name}", mend=_choose(fitting, "leave augment.kinds away"))
    if asked.noisy_test and AUGMENTATIONS[asked.noisy_test].alter is None:
        fitting = [name for name, other in AUGMENTATIONS.items() if other.alter and other.fits(task)]
        raise RecipeError(f"augment.noisy_test = {asked.noisy_test} alters no text", mend=_choose(fitting, "leave augment.noisy_test away"))
    needed = {
        "copies": any(AUGMENTATIONS[name].alter or name == "generation" for name in asked.kinds),
        "generator": "generation" in asked.kinds,
        "thesaurus": "synonyms" in (*asked.kinds, asked.noisy_test),
        "mixup_alpha": "mixup" in asked.kinds,
        "unlabelled": "self-training" in asked.kinds,
        "threshold": "self-training" in asked.kinds,
    }
    for name, used in needed.items():
        if not used and getattr(asked, name) != getattr(plain, name):
            raise RecipeError(
                f"augment.{name} is given, but nothing that it is for is among augment.kinds", mend=f"leave augment.{name} away"
            )
    if needed["thesaurus"] and not asked.thesaurus:
        raise RecipeError("synonyms need a thesaurus: a table with the columns word and synonym", mend="--augment-thesaurus FILE")
    thesaurus.read(recipe)
    if "generation" in asked.kinds and not asked.generator:
        raise RecipeError("generation needs a language model", mend="--augment-generator HuggingFaceTB/SmolLM2-135M-Instruct")
    if "self-training" in asked.kinds:
        if not asked.unlabelled:
            raise RecipeError("self-training needs texts without labels", mend="--augment-unlabelled FILE")
        if not Path(asked.unlabelled).expanduser().exists():
            raise RecipeError(
                f"there is nothing at {asked.unlabelled} (augment.unlabelled)", mend="give a .txt file, a table, or a folder of them"
            )


def _choose(names: Sequence[str], otherwise: str) -> str:
    return f"choose one of: {', '.join(names)}" if names else otherwise


def copies(rows: Sequence[Row], held: Sequence[Row], recipe: Recipe) -> tuple[list[Row], dict[str, Any]]:
    """(altered copies of the train `rows`, marked; how many of each kind, and why not more).

    `augment.copies` of each row and kind, all of them with different texts that neither train has nor `held`, the rows of validation and test.
    """
    task, words = tasks.get(recipe.task), Words(entities_of(rows), thesaurus.read(recipe))
    known, elsewhere = {key(row) for row in rows}, {key(row) for row in held}
    made: list[Row] = []
    counts: Counter[str] = Counter()
    without: Counter[str] = Counter()
    kept_out = 0
    for name in recipe.augment.kinds:
        alter = AUGMENTATIONS[name].alter
        for row in rows if alter else ():
            assert alter is not None
            draw = random.Random(f"{recipe.seed} {name} {key(row)}")
            for _ in range(recipe.augment.copies):
                for _ in range(TRIES):
                    new = alter(row, draw, task, words)
                    text = key(new)
                    kept_out += text in elsewhere
                    if text not in known and text not in elsewhere:
                        known.add(text)
                        made.append({**new, MARK: name})
                        counts[name] += 1
                        break
                else:
                    without[name] += 1
    for name in (one for one in recipe.augment.kinds if AUGMENTATIONS[one].alter):
        progress.note(
            f"augmentation {name}: {counts[name]:,} rows made of {len(rows):,}"
            + (f"; {without[name]:,} copies are not there, as a row gave no new text" if without[name] else "")
        )
    if kept_out:
        progress.note(f"augmentation: {kept_out:,} drawn texts stand in validation or test, and were drawn again")
    return made, {"of": len(rows), "rows": dict(counts), "not_made": dict(without), "in_other_splits": kept_out}


def noisy_by(recipe: Recipe) -> str:
    """How test rows are altered that are scored beside those as they are; empty when none are."""
    return recipe.augment.noisy_test or (NOISY if recipe.augment.kinds else "")


def noisy(rows: Sequence[Row], kind: str, recipe: Recipe) -> list[Row]:
    """The rows as `kind` alters them, each once, the same whatever the run's seed is. A row with nothing to alter stays."""
    alter, task, words = AUGMENTATIONS[kind].alter, tasks.get(recipe.task), Words(entities_of(rows), thesaurus.read(recipe))
    assert alter is not None
    return [alter(row, random.Random(f"{NOISE_SEED} noisy {key(row)}"), task, words) for row in rows]
