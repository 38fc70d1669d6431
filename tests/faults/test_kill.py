"""kill -9 in the middle of every stage: the run resumes, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import victim

from edgetune.recipe import Recipe

SAMPLE = (
    None if os.environ.get("EDGETUNE_EXHAUSTIVE") else 40
)  # states that the slow tests try; EDGETUNE_EXHAUSTIVE=1 tries all (a quarter of an hour)
STEP = 0.002  # seconds between two looks at the run directory
KEYS = {"adapt__checkpoint_every": 7, "adapt__epochs": 2}
MARKS = {  # a stage, and the path in the run directory that shows that it has begun
    "prepare": ".work/prepare-*/out",
    "adapt": ".work/adapt-*/checkpoint",
    "merge": ".work/merge-*/out",
    "graph": ".work/graph-*/out",
    "candidates": ".work/candidates/*",
    "bundle": ".work/export-*/out/onnx",
}
SMALLER = {"teach": ".work/teach-*/out", "compress": ".work/compress-*/checkpoint", "benchmark": ".work/benchmark-*/out"}
Begun = Callable[[Path], bool]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model and data."""
    return tiny.problem(tmp_path_factory.mktemp("kill"))


@pytest.fixture(scope="module")
def whole(folder: Path) -> tuple[dict[str, Any], float]:
    """What an uninterrupted run makes, and the seconds that it takes."""
    began = time.monotonic()
    made = resume(tiny.recipe(folder, output=str(folder / "whole"), **KEYS), folder / "whole.txt")
    return made, time.monotonic() - began


def resume(recipe: Recipe, log: Path, real: bool = False, until: str = "export") -> dict[str, Any]:
    victim.finish(victim.start(victim.run, recipe, real, until, log=log), log)
    return victim.outcome(Path(recipe.output))


def kill(recipe: Recipe, log: Path, begun: Begun, delay: float, real: bool = False, until: str = "export") -> bool:
    """Start a run and kill it `delay` seconds after `begun`; False when it was faster."""
    process = victim.start(victim.run, recipe, real, until, log=log)
    end = time.monotonic() + victim.PATIENCE
    while process.is_alive() and not begun(Path(recipe.output)) and time.monotonic() < end:
        time.sleep(STEP)
    process.join(delay)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9), log.read_text()[-4000:]
    return process.exitcode == -9


def marked(pattern: str) -> Begun:
    return lambda run: any(run.glob(pattern))


def test_killed_in_every_stage(folder: Path, whole: tuple[dict[str, Any], float]) -> None:
    recipe, log, draw = tiny.recipe(folder, output=str(folder / "stages"), **KEYS), folder / "stages.txt", random.Random(0)
    run = Path(recipe.output)
    for stage, mark in MARKS.items():
        assert kill(recipe, log, marked(mark), draw.uniform(0, 0.05)), f"{stage} was over before it could be killed"
    assert resume(recipe, log) == whole[0]
    notes = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]["adapt"]["notes"]
    assert any(note.startswith("resuming at step") for note in notes), "training began anew after a kill"
    assert not list((run / ".work").glob("*-*")), "scratch of a finished stage is left"


def test_killed_while_a_smaller_model_is_made_and_measured(folder: Path) -> None:
    """teach, compress and benchmark: what is trained and shipped is as if nothing had happened, and the measurement is there."""
    keys = {**KEYS, "compress__layers": 1, "compress__copies": 1, "compress__epochs": 2, "export__max_drop": 0.9}
    keys |= {"export__schemes": ["int8-dynamic-per-channel"]}  # of several the quickest ships, and times are never twice the same
    log, draw, until = folder / "smaller.txt", random.Random(0), "benchmark"
    expected = resume(tiny.recipe(folder, output=str(folder / "smaller-whole"), **keys), log)
    recipe = tiny.recipe(folder, output=str(folder / "smaller"), **keys)
    run = Path(recipe.output)
    for stage, mark in SMALLER.items():
        assert kill(recipe, log, marked(mark), draw.uniform(0, 0.05), until=until), f"{stage} was over before it could be killed"
        stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
        assert not [name for name in stages if name.partition(":")[0] == stage], f"{stage} was killed, and is called done"
    assert resume(recipe, log, until=until) == expected
    assert {name.partition(":")[0] for name in expected["stages"]} >= {"teach", "compress"}
    stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
    assert stages["benchmark"]["state"] == "done" and stages["benchmark"]["facts"]["bundles"]
    assert not list((run / ".work").glob("*-*")), "scratch of a finished stage is left"


def test_killed_while_it_searches(folder: Path) -> None:
    """Within trials: the same are tried, with the same outcome, and the same weights stay."""
    keys = {"adapt__checkpoint_every": 7, "adapt__epochs": 2, "adapt__learning_rate": 0, "search__trials": 4}
    log, draw = folder / "search.txt", random.Random(0)

    def found(name: str) -> tuple[Any, bytes]:
        recipe = tiny.recipe(folder, output=str(folder / name), **keys)
        victim.finish(victim.start(victim.run, recipe, False, "adapt", log=log), log)
        trials = json.loads((folder / name / "report.json").read_text("utf-8"))["adapt"]["search"]["trials"]
        weights = (folder / name / "checkpoint" / "model.safetensors").read_bytes()
        return [{key: value for key, value in trial.items() if key != "seconds"} for trial in trials], weights

    expected, recipe = found("searched"), tiny.recipe(folder, output=str(folder / "search"), **keys)
    for done in (1, 2, 3):

        def begun(run: Path, done: int = done) -> bool:
            return any(len(json.loads(path.read_text("utf-8"))) >= done for path in run.glob(".work/adapt-*/trials/trials.json"))

        assert kill(recipe, log, begun, draw.uniform(0, 0.05), until="adapt"), f"all was over before trial {done + 1} could be killed"
    assert found("search") == expected
    assert not list((folder / "search" / ".work").glob("*-*")), "scratch of a finished stage is left"


def test_a_lock_dies_with_its_process(folder: Path) -> None:
    from edgetune.workspace import opened

    recipe, log = tiny.recipe(folder, output=str(folder / "lock")), folder / "lock.txt"
    assert kill(recipe, log, marked(MARKS["prepare"]), 0)
    with opened(recipe):
        pass


def test_states_that_a_kill_can_leave(folder: Path, whole: tuple[dict[str, Any], float]) -> None:
    """The run directory before each change to it, resumed; here a few of the states, many of them in the slow tests."""
    resumed_from_states(folder, whole[0], tiny.recipe(folder, output=str(folder / "photographed"), **KEYS), sample=3)


@pytest.mark.slow
def test_many_states_that_a_kill_can_leave(folder: Path, whole: tuple[dict[str, Any], float]) -> None:
    resumed_from_states(folder, whole[0], tiny.recipe(folder, output=str(folder / "photographed"), **KEYS), SAMPLE)


@pytest.mark.slow
def test_many_states_of_a_run_that_is_done_again(folder: Path, whole: tuple[dict[str, Any], float]) -> None:
    """Other data: every stage puts something new in the place of something old."""
    other = tiny.table(folder / "other" / "data.csv", tiny.sentences(200, seed=1))
    keys = {**KEYS, "output": str(folder / "again"), "data__path": str(folder / "changing.csv")}
    log, recipe = folder / "again.txt", tiny.recipe(folder, **keys)
    shutil.copyfile(other, folder / "changing.csv")
    expected = resume(recipe, log)
    shutil.rmtree(recipe.output)
    shutil.copyfile(folder / "data.csv", folder / "changing.csv")
    assert resume(recipe, log) != expected
    shutil.copyfile(other, folder / "changing.csv")
    resumed_from_states(folder, expected, recipe, SAMPLE)


def resumed_from_states(folder: Path, expected: dict[str, Any], recipe: Recipe, sample: int | None = None) -> None:
    place = Path(recipe.output)
    album, log = folder / f"album-{place.name}", folder / f"album-{place.name}.txt"
    if not album.exists():
        album.mkdir()
        victim.finish(victim.start(victim.photograph, recipe, album, log=log), log)
        assert victim.outcome(place) == expected
    every = sorted(path for path in album.iterdir() if path.is_dir())
    assert len(every) > 60, "photographs were taken of a part of the run only"
    for state in every if sample is None else random.Random(0).sample(every, sample):
        shutil.rmtree(place)
        shutil.copytree(state, place)
        assert resume(recipe, log) == expected, f"killed before {state.with_suffix('.txt').read_text()}"
        with log.open("a") as file:
            file.write(f"{state.name} of {len(every)}\n")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_at_random(folder: Path, method: str) -> None:
    """Moments drawn over the measured duration of what is left, with the real exporter; fifteen kills."""
    keys = {**KEYS, "method": method}
    began, log, draw = time.monotonic(), folder / f"random-{method}.txt", random.Random(1)
    expected = resume(tiny.recipe(folder, output=str(folder / f"whole-{method}"), **keys), log, real=True)
    seconds, kills, runs = time.monotonic() - began, 0, 0
    while kills < 15:
        runs += 1
        recipe = tiny.recipe(folder, output=str(folder / f"random-{method}-{runs}"), **keys)
        while kill(recipe, log, lambda run: True, draw.uniform(0, seconds * draw.random()), real=True):
            kills += 1
        assert victim.outcome(Path(recipe.output)) == expected
        shutil.rmtree(recipe.output)
