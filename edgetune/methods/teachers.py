"""The adapted models that a recipe names as teachers: where they are, and whether they say what is to be learned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune import data, progress
from edgetune.artifact import Dataset, Merged
from edgetune.data.columns import key
from edgetune.errors import DataError, RecipeError
from edgetune.recipe import Recipe
from edgetune.workspace import existing


@dataclass(frozen=True)
class Teacher:
    """A plain Hugging Face directory, the labels of its logits in order; what its run measured on test, and the folder of its rows (nothing and none
    without a run)."""

    folder: Path
    labels: tuple[str, ...]
    test: Mapping[str, float] = field(default_factory=dict)
    data: Path | None = None

    def order(self, labels: Sequence[str]) -> list[int]:
        """The place of each of `labels` among its own. Raises RecipeError when it has others."""
        if set(labels) != set(self.labels):
            lacks, more = sorted(set(labels) - set(self.labels)), sorted(set(self.labels) - set(labels))
            details = [
                f"{what}: {', '.join(names[:8])}" for what, names in (("only in the data", lacks), ("only the teacher's", more)) if names
            ]
            raise RecipeError(
                f"the teacher {self.folder} has other labels than the data",
                details=details,
                mend="teach with a model that was adapted to the same labels",
            )
        return [self.labels.index(label) for label in labels]


def named(recipe: Recipe, section: str = "distillation") -> list[Teacher]:
    """Those of `distillation.teacher`, or of another section. Raises RecipeError for a missing one, an unfinished run, or one of another task."""
    if recipe.method == section == "distillation" and not recipe.distillation.teacher:
        raise RecipeError(
            "method distillation needs a model to learn from", mend="--teacher RUN, of a run that was adapted to the same labels"
        )
    return [_read(Path(place).expanduser(), recipe.task) for place in getattr(recipe, section).teacher]


def separate(found: Sequence[Teacher], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raises DataError where a teacher has learned from rows of test, which then prove nothing; rows of validation that it has learned from are told.

    `rows`: of train, validation and test. A row that is in train here as well is no secret.
    """
    own = {key(row) for row in rows["train"]}
    held = {split: {key(row) for row in rows[split]} - own for split in ("validation", "test")}
    for teacher in found:
        known = {key(row) for row in data.rows(teacher.data, "train")} if teacher.data else set()
        seen = {split: len(keys & known) for split, keys in held.items()}
        if seen["test"]:
            raise DataError(
                f"the teacher {teacher.folder} has learned from {seen['test']:,} of the {len(rows['test']):,} test rows: they would prove nothing",
                mend="give all runs the same splits: a folder with train.csv, validation.csv and test.csv, or the same seed",
            )
        if seen["validation"]:
            progress.warn(
                f"the teacher {teacher.folder} has learned from {seen['validation']:,} of the {len(rows['validation']):,} validation rows: what validation "
                "says is too good, test is not touched (the same splits for all runs: a folder with a validation.csv)"
            )


def _read(place: Path, task: str) -> Teacher:
    folder, test, rows = place, {}, None
    if (place / "recipe.toml").is_file():
        run = existing(place)
        if run.recipe.task != task:
            raise RecipeError(f"the teacher {place} was adapted to {run.recipe.task}, not to {task}", mend="choose another teacher")
        if run.finished("merge", Merged, "merged") is None:
            raise RecipeError(f"the teacher {place} is not merged", mend=f"edgetune merge {place}")
        rows = place / "data" if run.finished("prepare", Dataset, "data") else None
        folder, test = place / "merged", run.manifest["stages"].get("adapt", {}).get("facts", {}).get("test", {})
    config: Mapping[str, Any] = {}
    if (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file():
        config = json.loads((folder / "config.json").read_text("utf-8"))
    names = config.get("id2label") or {}
    if not names:
        raise RecipeError(
            f"there is no adapted model at {place}",
            mend="--teacher takes a run, or a Hugging Face directory with labels in its config.json and a tokenizer.json",
        )
    return Teacher(folder, tuple(names[str(i)] for i in range(len(names))), test, rows)
