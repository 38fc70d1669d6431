"""Everything that can be refused before a file is written or a model loaded."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path

from edgetune import methods, progress, tasks
from edgetune.data import descriptions, other_tests
from edgetune.errors import RecipeError
from edgetune.methods import augmented, pace, search, teachers
from edgetune.recipe import AUTO, ELSEWHERE, Recipe, keys
from edgetune.sections import DomainKeys, PatternKeys
from edgetune.table import resolve


def complete(recipe: Recipe, until: str) -> None:
    """Raises RequestError for a recipe that cannot be done `until` that stage."""
    task = tasks.get(recipe.task)
    if recipe.method not in (ELSEWHERE, AUTO):
        method = methods.get(recipe.method)
        if not method.fits(task):
            fitting = [name for name, row in methods.METHODS.items() if row.fits(task)]
            raise RecipeError(f"method {method.name} does not fit {task.name}", mend=f"choose one of: {', '.join(fitting)}")
    search.check(recipe)
    augmented.check(recipe)
    if recipe.method in methods.DOMAIN or recipe.domain != DomainKeys():
        from edgetune.methods import domain

        domain.check(recipe)
    if recipe.data.other_tests:
        other_tests.digests(recipe)
    if recipe.method == "distillation":
        teachers.named(recipe)
        if recipe.adapt.class_weights != "none":
            raise RecipeError(
                f"adapt.class_weights = {recipe.adapt.class_weights}, but distillation learns the teacher's answers, not classes",
                mend="leave adapt.class_weights away, and give the teacher balanced ones",
            )
    if recipe.compress.teacher:
        if not (learn := methods.get("distillation")).fits(task):
            raise RecipeError(
                f"compress.teacher is for {', '.join(sorted(learn.tasks))}, and not for {task.name}", mend="leave compress.teacher away"
            )
        teachers.named(recipe, "compress")
    if recipe.data.descriptions and task.name not in descriptions.TASKS:
        raise RecipeError(
            f"data.descriptions is for {', '.join(descriptions.TASKS)}, and not for {task.name}", mend="leave data.descriptions away"
        )
    if recipe.method in methods.UNTAUGHT and recipe.adapt.class_weights != "none":
        raise RecipeError(f"{recipe.method} learns from no row, so that none can weigh more", mend="leave adapt.class_weights away")
    if recipe.pattern != PatternKeys() and recipe.method not in methods.PATTERNS:
        raise RecipeError(
            f"pattern.text is for {' and '.join(methods.PATTERNS)}, and not for {recipe.method}", mend="leave pattern.text away"
        )
    if recipe.data.shots and "label" not in task.columns:
        fitting = [name for name, row in tasks.TASKS.items() if "label" in row.columns]
        raise RecipeError(
            f"data.shots = {recipe.data.shots}, but a row of {task.name} has no one label",
            details=[f"tasks with a label a row: {', '.join(fitting)}"],
            mend="leave data.shots away",
        )
    if recipe.adapt.class_weights != "none" and not hasattr(task.module, "weights"):
        fitting = [name for name, row in tasks.TASKS.items() if hasattr(row.module, "weights")]
        raise RecipeError(
            f"adapt.class_weights = {recipe.adapt.class_weights}, but {task.name} has no classes",
            details=[f"tasks with classes: {', '.join(fitting)}"],
            mend="leave adapt.class_weights away",
        )
    if recipe.method != "full" and (recipe.adapt.initial == "random" or recipe.adapt.from_scratch) and recipe.method != AUTO:
        asked = "adapt.from_scratch" if recipe.adapt.from_scratch else "adapt.initial = random"
        raise RecipeError(f"{asked} is for method full: what {recipe.method} keeps of a base must be worth keeping", mend="--method full")
    if recipe.adapt.sampling_temperature != 1 and not hasattr(task.module, "drawn"):
        raise RecipeError(
            f"adapt.sampling_temperature = {recipe.adapt.sampling_temperature:g}, but {task.name} has one data set",
            mend="leave adapt.sampling_temperature away",
        )
    if recipe.export.stop and task.family == "encoder":
        raise RecipeError(f"export.stop is given, but {task.name} writes no text", mend="leave export.stop away")
    if "" in recipe.export.stop:
        raise RecipeError("export.stop holds an empty text, which would end every answer before it begins", mend="leave it away")
    missing = [name for name, value in (("model", recipe.model), ("data.path", recipe.data.path), ("output", recipe.output)) if not value]
    if missing:
        raise RecipeError(f"the recipe lacks {', '.join(missing)}", mend="give it as a flag (--model, --data, --output), or edgetune init")
    if until in ("export", "benchmark") and not recipe.export.targets:
        raise RecipeError("no target given", mend="edgetune targets detect names this machine's; edgetune targets list shows all")
    if recipe.method != ELSEWHERE:
        _based(recipe)
    if recipe.method not in (ELSEWHERE, AUTO):
        _tell_unused(recipe, methods.get(recipe.method))


def _tell_unused(recipe: Recipe, method: methods.Method) -> None:
    """Keys that say something, and that the method does not read."""
    asked, plain = methods.ranked(recipe), methods.ranked(Recipe(method=method.name))
    others = {section for other in methods.METHODS.values() for section in other.sections} - set(method.sections)
    for key in (*method.unused, *(key for key in keys() if key.partition(".")[0] in others)):
        given, default = (attrgetter(key)(one) for one in (asked, plain))
        if given != default:
            progress.warn(f"{key} = {given} has no effect: method {method.name} does not read it")


def _based(recipe: Recipe) -> None:
    """Raises RecipeError for a base that is of no use to the method, or has no layers as the settings ask for; loads no weight."""
    other = Path(recipe.start, "merged")  # of which nothing is copied yet
    if recipe.start and other.is_dir():
        recipe = recipe.model_copy(update={"model": str(other), "start": ""})
    pace.check(recipe)
    if recipe.method != AUTO and (own := methods.get(recipe.method).check):
        resolve(own)(recipe)
