"""Models like the run's own, trained with other seeds: what several answer together teaches a smaller model more than one does.

Allen-Zhu and Li, arXiv:2012.09816. They learn from the same rows and know the same splits; smaller models are judged against the run's own model alone.
"""

from __future__ import annotations

from edgetune import methods, progress, tasks
from edgetune.artifact import Artifact, Dataset, Merged
from edgetune.methods import augmented
from edgetune.pipeline import training
from edgetune.recipe import Recipe
from edgetune.workspace import Workspace

KEY = "compress.ensemble"
SEVERAL = 3  # that teach together where nothing was asked
QUICK = 600.0  # seconds that the run's own training took at most, for others to be trained unasked


def others(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact]) -> list[Merged]:
    """Those that teach beside the run's own model."""
    count = _count(workspace, recipe) - 1
    if count > 0:
        progress.note(f"{count} more models are trained, with other seeds, to teach smaller ones ({KEY} = 1: without)")
    found = []
    for i in range(1, count + 1):
        one = _like(recipe, i)
        folder = f"ensemble/{i}/{methods.get(one.method).folder}"
        adapted = training.adapt(workspace, one, dataset, begun, f"ensemble:{i}", folder)
        found.append(training.merge(workspace, one, dataset, adapted, f"ensemble-merge:{i}", f"ensemble/{i}/merged"))
    return found


def _count(workspace: Workspace, recipe: Recipe) -> int:
    """How many teach, the run's own among them; what forbids others is said where they were asked for."""
    asked = recipe.compress.ensemble
    reason = _alone(recipe)
    if asked is not None:
        if reason and asked > 1:
            progress.warn(f"{KEY} = {asked} has no effect: {reason}")
        return 1 if reason else asked
    seconds = workspace.manifest["stages"].get("adapt", {}).get("facts", {}).get("seconds", QUICK + 1)
    return SEVERAL if not reason and seconds <= QUICK else 1


def _alone(recipe: Recipe) -> str:
    """Why no other model can teach beside the run's own."""
    if recipe.method not in methods.METHODS:
        return "the model was trained elsewhere"
    if recipe.compress.teacher:
        return "compress.teacher says who teaches"
    if not methods.get("distillation").fits(tasks.get(recipe.task)):
        return f"several models of {recipe.task} do not answer together"
    if "adapt.epochs" in methods.get(recipe.method).unused:
        return f"{recipe.method} gives the same model with every seed"
    if recipe.search.trials or augmented.makes(recipe) or recipe.continual.run:
        return "it is not for runs with a search, with made rows, or that continue another"
    return ""


def _like(recipe: Recipe, i: int) -> Recipe:
    """The same training with another seed, without what is only measured beside it."""
    adapt = recipe.adapt.model_copy(update={"baselines": False, "from_scratch": False})
    return recipe.model_copy(update={"seed": recipe.seed + i, "adapt": adapt})
