"""The stages from data to the merged model: what each depends on, and which of them a recipe needs."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

from edgetune import methods, progress, source
from edgetune.artifact import Adapted, Artifact, Dataset, Merged, folder_digest
from edgetune.errors import RecipeError
from edgetune.methods import augmented, teachers
from edgetune.pipeline.staged import digest, staged
from edgetune.recipe import AUTO, ELSEWHERE, Recipe, changed, dump
from edgetune.sections import AugmentKeys, ContinualKeys, SearchKeys
from edgetune.workspace import Workspace, existing, write_text

FILES = (
    "augment.thesaurus",
    "data.descriptions",
    "distillation.unlabelled",
    "domain.unlabelled",
)  # keys that name what is read in training


def continued(recipe: Recipe) -> Recipe:
    """The recipe with what the run that it continues decides; as it is without one."""
    if recipe.continual == ContinualKeys():
        return recipe
    if recipe.start and recipe.continual.run:
        raise RecipeError(
            "--from and --continue both say where training starts",
            mend="--continue goes on with one task, --from begins another; leave one away",
        )
    from edgetune.methods import continual

    return continual.complete(recipe)


def started(recipe: Recipe) -> Recipe:
    """The recipe with the base of the run that it starts from; as it is without one."""
    if not recipe.start:
        return recipe
    from edgetune.stages.start import complete

    if recipe.method == ELSEWHERE:
        raise RecipeError("start is for training, and this model was trained elsewhere", mend="leave start away")
    return complete(recipe)


def chosen(recipe: Recipe) -> Recipe:
    """The recipe with the method that its run has chosen already; as it is when none was asked for, or none is chosen yet."""
    if recipe.method != AUTO or not (Path(recipe.output) / "recipe.toml").is_file():
        return recipe
    found = existing(Path(recipe.output)).manifest["stages"].get(AUTO)
    if not found:
        return recipe
    progress.note(f"method: {found['facts']['method']} (auto: {found['facts']['why']})")
    return recipe.model_copy(update={"method": found["facts"]["method"]})


def prepare(workspace: Workspace, recipe: Recipe) -> Dataset:
    """Rows in splits."""
    from edgetune.data import digests
    from edgetune.stages import prepare as stage

    key = {
        "task": recipe.task,
        "seed": recipe.seed,
        "data": changed(recipe.data, {"licence", "other_tests", "descriptions"}),
        "files": digests(recipe.data),
    }
    key |= _earlier(recipe, "dataset", "replay")
    return staged(workspace, "prepare", Dataset, "data", lambda out: stage.prepare(recipe, out), key, [])


def start(workspace: Workspace, recipe: Recipe) -> list[Artifact]:
    """What training starts from, where that is another run's model."""
    if not recipe.start:
        return []
    from edgetune.stages import start as stage

    key = {"merged": stage.origin(recipe)["merged"], "task": recipe.task}
    return [staged(workspace, stage.STAGE, Artifact, stage.FOLDER, lambda out: stage.start(recipe, out), key, [])]


def choose(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact]) -> Recipe:
    """The recipe with a method that fits; the run's says the same from here on."""
    from edgetune.stages import choose as stage

    key = {**recipe.model_dump(include={"model", "task"}, mode="json"), "adapt": changed(recipe.adapt), "files": _base(recipe)}
    staged(workspace, AUTO, Artifact, AUTO, lambda out: stage.choose(recipe, dataset, out), key, [dataset, *begun])
    recipe = chosen(recipe)
    write_text(workspace.path / "recipe.toml", dump(recipe))
    return recipe


def adapt(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact], name: str = "adapt", folder: str = "") -> Adapted:
    """What training leaves, as stage `name` in `folder` (none: the method's own), after the rows that are made for it."""
    from edgetune.stages import adapt as stage

    made = _augment(workspace, recipe, dataset, begun)
    scratch = _from_scratch(workspace, recipe, dataset, begun)
    method = methods.get(recipe.method)
    key = {
        **recipe.model_dump(include={"model", "task", "method", "seed"}, mode="json"),
        "adapt": changed(recipe.adapt, {"generated"}),
        "lora": changed(recipe.lora),
        **{section: changed(getattr(recipe, section)) for section in method.sections},
        **({"search": recipe.search.model_dump(mode="json")} if recipe.search.trials else {}),
        **({"augment": changed(recipe.augment)} if recipe.augment != AugmentKeys() else {}),
        **{name: digest(place) for name in FILES if (place := attrgetter(name)(recipe))},
        "files": _base(recipe),
        **_earlier(recipe, "merged", "ewc"),
    }
    if recipe.method == "distillation":
        key["teachers"] = [folder_digest(teacher.folder) for teacher in teachers.named(recipe)]
    folder = folder or method.folder
    parents = [dataset, *begun, *filter(None, (made, scratch))]
    return staged(workspace, name, Adapted, folder, lambda out: stage.adapt(recipe, dataset, out, made, scratch), key, parents)


def _from_scratch(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact]) -> Adapted | None:
    """What the same training gives from random weights, where the recipe asks for it."""
    if not recipe.adapt.from_scratch:
        return None
    progress.note("from scratch: the same training, from random weights (adapt.from_scratch)")
    keys = recipe.adapt.model_copy(update={"from_scratch": False, "initial": "random", "baselines": False})
    plain = recipe.model_copy(update={"adapt": keys, "search": SearchKeys()})
    return adapt(workspace, plain, dataset, begun, "from_scratch", "from_scratch")


def _augment(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact]) -> Artifact | None:
    """The rows that are made to learn from, if any are. Those that a first model judges have it learned before."""
    if not augmented.makes(recipe):
        return None
    from edgetune.stages import augment as stage

    first = augmented.first(recipe)
    teacher = adapt(workspace, first, dataset, begun, "first", "first") if first else None
    key = {**recipe.augment.model_dump(mode="json", include=augmented.KEYS), "seed": recipe.seed, "task": recipe.task}
    key["texts"] = digest(recipe.augment.unlabelled)
    if recipe.augment.thesaurus:
        key["thesaurus"] = digest(recipe.augment.thesaurus)
    if recipe.augment.generator:
        key["generator"] = [recipe.augment.generator, source.digest(recipe.augment.generator)]
    parents = [dataset, *([teacher] if teacher else [])]
    return staged(workspace, "augment", Artifact, "augmented", lambda out: stage.augment(recipe, dataset, teacher, out), key, parents)


def source_only(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact], adapted: Adapted) -> Adapted | None:
    """What the same training gives without target texts; where there are tests to compare the two on."""
    if not (recipe.data.other_tests and recipe.adapt.baselines):
        return None
    from edgetune.methods import domain

    progress.note(f"source-only, which {recipe.method} is compared with (adapt.baselines = false: without)")
    return adapt(workspace, domain.alone(recipe, adapted.facts["settings"]), dataset, begun, "source_only", "source_only")


def generate(workspace: Workspace, recipe: Recipe, dataset: Dataset, adapted: Adapted) -> None:
    """What the model writes for test rows."""
    from edgetune.stages import generate as stage

    key = {"seed": recipe.seed, **recipe.adapt.model_dump(include={"generated", "baselines"})}
    staged(
        workspace, "generated", Artifact, "generated", lambda out: stage.generate(recipe, dataset, adapted, out), key, [dataset, adapted]
    )


def other_tests(workspace: Workspace, recipe: Recipe, dataset: Dataset, model: Artifact, plain: Adapted | None = None) -> None:
    """The metric on further test sets, where the recipe names some."""
    if not recipe.data.other_tests:
        return
    from edgetune.data.other_tests import digests
    from edgetune.stages.other_tests import measure

    key = {"files": digests(recipe), "on_bad_row": recipe.data.on_bad_row}
    parents = [dataset, model, *([plain] if plain else [])]
    staged(workspace, "other_tests", Artifact, "other_tests", lambda out: measure(recipe, dataset, model, plain, out), key, parents)


def adopt(workspace: Workspace, recipe: Recipe, dataset: Dataset) -> Merged:
    """A model that was trained elsewhere, as a merged one."""
    from edgetune.stages import adopt as stage

    key = {"model": recipe.model, "files": source.digest(recipe.model)}
    return staged(workspace, "merge", Merged, "merged", lambda out: stage.adopt(recipe, dataset, out), key, [dataset])


def merge(workspace: Workspace, recipe: Recipe, dataset: Dataset, adapted: Adapted, name: str = "merge", folder: str = "merged") -> Merged:
    """The plain model, proven equal to the adapted one, as stage `name` in `folder`."""
    from edgetune.stages import merge as stage

    return staged(workspace, name, Merged, folder, lambda out: stage.merge(recipe, dataset, adapted, out), {}, [dataset, adapted])


def _base(recipe: Recipe) -> str:
    """The digest of a local base; of a run that starts from another one that is in what it kept."""
    return "" if recipe.start else source.digest(recipe.model)


def _earlier(recipe: Recipe, part: str, key: str) -> dict[str, Any]:
    """Of the run that is continued what a stage depends on; nothing without one, so that the keys of other runs stay as they were."""
    if not recipe.continual.run:
        return {}
    from edgetune.methods import continual

    return {"continual": {part: getattr(continual.learned(recipe), part).digest, key: getattr(recipe.continual, key)}}
