"""choose: the method of a run whose recipe says `auto`, by its data, its model and this machine."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from edgetune import methods, progress, tasks
from edgetune.artifact import Dataset
from edgetune.methods import auto, memory
from edgetune.methods.device import choose as choose_device
from edgetune.methods.model import start
from edgetune.recipe import Recipe
from edgetune.workspace import write_json


def choose(recipe: Recipe, dataset: Dataset, out: Path) -> dict[str, Any]:
    """Returns {method, why, passed {method: why not}}, which is also in `out / "choice.json"`. Raises RecipeError when nothing fits."""
    method, why, passed = auto.choose(case(recipe, dataset))
    found = {"method": method, "why": why, "passed": passed}
    write_json(out / "choice.json", found)
    return found


def case(recipe: Recipe, dataset: Dataset) -> auto.Case:
    """What is known before a weight is loaded."""
    task, facts = tasks.get(recipe.task), dataset.facts
    counts = [count for label, count in facts["label_counts"].get("train", {}).items() if label != facts["out_of_scope"]]
    if "label" not in task.columns:  # several labels, or tags, a row
        counts = []
    with progress.silent():  # adapt says it
        device = choose_device(recipe.adapt)
        where = start(recipe)
        config, meta = memory.outline(recipe, list(facts["labels"]))
    tokens = memory.tokens(recipe, facts)
    fitting = {name: row.defaults[task.family] for name, row in methods.METHODS.items() if row.fits(task)}
    estimates = {
        name: memory.estimate(
            recipe.model_copy(update={"method": name}),
            config,
            meta,
            -(-(recipe.adapt.batch_size or default.batch_size) // recipe.adapt.accumulation),
            tokens,
            device,
        )
        for name, default in fitting.items()
    }
    return auto.Case(
        task=task,
        rows=facts["rows"]["train"],
        labels=len(counts),
        rows_a_label=median(counts) if counts else 0,
        fewest=min(counts, default=0),
        pairs="text_pair" in facts["columns"],
        parameters=sum(weight.numel() for weight in meta.parameters()),
        compares=(where.folder / "modules.json").is_file(),
        has_head=bool(methods.heads(name for name, _ in meta.named_parameters())),
        teachers=len(recipe.distillation.teacher),
        cuda=device.name == "cuda",
        available=next(iter(estimates.values())).available,
        needs={name: estimate.total for name, estimate in estimates.items()},
    )
