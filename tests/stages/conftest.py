"""One prepared data set, trained and merged for every method that a CPU test can afford; stages are called as the pipeline calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import pipeline
from edgetune.artifact import Adapted, Dataset, Graph, Merged
from edgetune.recipe import Recipe
from edgetune.workspace import Workspace


@dataclass(frozen=True)
class Run:
    """A run up to merge, and its artifacts."""

    recipe: Recipe
    dataset: Dataset
    adapted: Adapted
    merged: Merged

    def graph(self) -> Graph:
        path = self.recipe.output + "-graph"
        Path(path).mkdir(exist_ok=True)
        tiny.graph(self.merged.path, Path(path) / "model.onnx")
        return Graph(Path(path), "graph", {"generation": {}})


def opened(recipe: Recipe) -> Run:
    from edgetune import methods

    run = Workspace(Path(recipe.output))
    kinds = ((Dataset, "prepare", "data"), (Adapted, "adapt", methods.get(recipe.method).folder), (Merged, "merge", "merged"))
    found: list[Any] = [run.finished(name, kind, folder) for kind, name, folder in kinds]
    assert all(found)
    return Run(recipe, *found)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.problem(tmp_path_factory.mktemp("stages"), outside=24)


@pytest.fixture(scope="session")
def toy_run(toy_folder: Path) -> Callable[[str], Run]:
    """A run by method; each is made once."""
    made: dict[str, Run] = {}

    def run(method: str) -> Run:
        if method not in made:
            rate = {"full": 5e-3, "head": 2e-2, "few-shot": 1e-3, "lora": 1e-2, "ia3": 5e-2, "prompt-tuning": 3e-2}.get(method, 1e-2)
            epochs = 4 if method in ("full", "head", "few-shot", "lora") else 1
            keys = {"method": method, "adapt__learning_rate": rate, "adapt__epochs": epochs}
            recipe = tiny.recipe(toy_folder, output=str(toy_folder / method), **keys)
            pipeline.run(recipe, "merge")
            made[method] = opened(recipe)
        return made[method]

    return run


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """A stage's empty folder, in a scratch space of its own."""
    path = tmp_path / "scratch" / "out"
    path.mkdir(parents=True)
    return path
