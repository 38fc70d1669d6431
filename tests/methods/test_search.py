"""The search: it finds what is better, gives up what is worse, and a kill changes nothing. The trainings are curves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from edgetune import progress
from edgetune.errors import RecipeError, StageError
from edgetune.methods import search
from edgetune.methods.loop import Diverged, State
from edgetune.methods.settings import resolve
from edgetune.recipe import Recipe, load

Value = Callable[[Recipe], float]
KEYS = {"task": "text-classification", "method": "full", "search.trials": 12}


class Killed(Exception):
    pass


def recipe(**changes: Any) -> Recipe:
    return load(None, KEYS | {key.replace("__", "."): value for key, value in changes.items()})


def near(rate: float) -> Value:
    """Best at this learning rate."""
    return lambda recipe: 0.9 - 0.2 * abs(math.log(recipe.adapt.learning_rate / rate))


class Curves:
    """Trainings that rise to `value` over their epochs. `kill`: the trial in which the process dies after an epoch."""

    def __init__(self, value: Value, kill: int | None = None) -> None:
        self.value, self.kill, self.begun = value, kill, 0

    def __call__(self, recipe: Recipe, scratch: Path, stop: search.Stop) -> State:
        self.begun += 1
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / "weights").write_text(repr(recipe.adapt))
        state = State()
        while state.epoch < recipe.adapt.epochs and not stop(state):
            if self.begun == self.kill and state.epoch == 1:
                raise Killed
            state.epoch += 1
            value = self.value(recipe)
            if math.isnan(value):
                raise Diverged("the loss is nan")
            state.history.append({"accuracy": value * state.epoch / recipe.adapt.epochs, "perplexity": value, "tie": -1.0})
        return state


def find(recipe: Recipe, train: Curves, scratch: Path) -> search.Found:
    return search.search(recipe, asdict(resolve(recipe, 1000)), train, scratch)


def told(found: search.Found) -> list[dict[str, Any]]:
    """The trials without their times."""
    return [{key: value for key, value in one.items() if key != "seconds"} for one in found.facts["trials"]]


def test_it_finds_a_better_rate(tmp_path: Path) -> None:
    train = Curves(near(7e-4))
    with progress.collecting() as notes:
        found = find(recipe(), train, tmp_path)
    trials = found.facts["trials"]
    assert len(trials) == train.begun == 12
    assert trials[0]["settings"] == {"adapt.learning_rate": 2e-4, "adapt.epochs": 16, "adapt.label_smoothing": 0.1}, (
        "the defaults come first"
    )
    best = max(trials, key=lambda one: one["value"])
    assert found.facts["kept"] == best["trial"] > 0
    assert best["value"] > trials[0]["value"] + 0.15
    assert found.recipe.adapt.learning_rate == best["settings"]["adapt.learning_rate"] == pytest.approx(7e-4, rel=0.5)
    assert found.recipe.adapt.epochs == best["length"] == len(best["epochs"])
    assert found.recipe.lora == recipe().lora and found.recipe.adapt.batch_size == 0, "the rest is as it was asked"
    assert all(4e-5 <= one["settings"]["adapt.learning_rate"] <= 1e-3 and 8 <= one["length"] <= 32 for one in trials)
    assert (
        f"search: trial {best['trial'] + 1} is kept: validation accuracy {best['value']:.4f} (the defaults: {trials[0]['value']:.4f})"
        in notes[-1]
    )


def test_it_learns_from_what_it_tried(tmp_path: Path) -> None:
    """Later proposals are nearer to the best than those that were drawn at random."""
    found = find(recipe(search__trials=40, adapt__epochs=1), Curves(near(4e-4)), tmp_path)
    far = [abs(math.log(one["settings"]["adapt.learning_rate"] / 4e-4)) for one in found.facts["trials"]]
    assert sum(far[20:]) / 20 < 0.6 * sum(far[1:9]) / 8


def test_the_same_seed_finds_the_same(tmp_path: Path) -> None:
    one, again, other = (find(recipe(seed=seed), Curves(near(7e-4)), tmp_path / str(i)) for i, seed in enumerate((3, 3, 4)))
    assert told(one) == told(again)
    assert told(one) != told(other)


@pytest.mark.parametrize("kill", [1, 2, 6, 12])
def test_a_killed_search_goes_on_with_the_trial_that_it_was_in(tmp_path: Path, kill: int) -> None:
    whole = find(recipe(), Curves(near(7e-4)), tmp_path / "whole")
    with pytest.raises(Killed):
        find(recipe(), Curves(near(7e-4), kill), tmp_path / "killed")
    train = Curves(near(7e-4))
    resumed = find(recipe(), train, tmp_path / "killed")
    assert train.begun == 12 - kill + 1
    assert told(resumed) == told(whole)
    assert resumed.scratch.name == whole.scratch.name
    nothing = Curves(near(7e-4))
    assert told(find(recipe(), nothing, tmp_path / "killed")) == told(whole)
    assert nothing.begun == 0, "a finished search trains nothing"


def test_a_bad_trial_is_given_up_at_once(tmp_path: Path) -> None:
    found = find(recipe(search__trials=30), Curves(near(2e-4)), tmp_path)
    trials = found.facts["trials"]
    given_up = [one for one in trials if one["state"] == search.PRUNED]
    assert given_up and all(one["trial"] >= search.STARTUP for one in given_up)
    assert all(len(one["epochs"]) < one["length"] for one in given_up)
    assert all(len(one["epochs"]) == one["length"] for one in trials if one["state"] == search.DONE)
    assert {one["trial"] for one in given_up}.isdisjoint({found.facts["kept"]})
    whole = sum(one["length"] for one in trials)
    assert sum(len(one["epochs"]) for one in trials) < 0.8 * whole


def test_what_is_behind() -> None:
    def one(*epochs: float, state: str = search.DONE) -> dict[str, Any]:
        return {"state": state, "epochs": list(epochs), "length": 4}

    done = [one(0.1, 0.2, 0.3, 0.4), one(0.3, 0.4, 0.5, 0.6), one(0.4, 0.5, 0.6, 0.7), one(0.6, 0.7, 0.8, 0.9)]
    assert search.behind([0.34], 4, done, 1), "the median after a quarter is 0.35"
    assert not search.behind([0.36], 4, done, 1)
    assert not search.behind([0.35], 4, done, 1), "as good as the median is good enough"
    assert not search.behind([0.36, 0.1], 8, done, 1), "its best counts; two of eight are a quarter"
    assert search.behind([0.36, 0.36], 4, done, 1), "after a half it is 0.45"
    assert search.behind([0.36], 2, done, 1), "and one of two is a half"
    assert not search.behind([0.0], 8, done, 1), "nobody has said anything after an eighth"
    assert not search.behind([], 4, done, 1)
    assert not search.behind([0.0], 4, [*done[:3], one(0.9, state=search.PRUNED)], 1), "three are too few"
    assert search.behind([0.36], 4, done, -1), "where lower is better"
    assert not search.behind([0.34], 4, done, -1)


def test_the_first_of_equals_is_the_default(tmp_path: Path) -> None:
    with progress.collecting() as notes:
        found = find(recipe(), Curves(lambda recipe: 0.5), tmp_path)
    assert found.facts["kept"] == 0
    assert found.scratch == found.defaults
    assert notes[-1] == "search: nothing beats the defaults on validation (accuracy 0.5000): they are kept"
    assert found.recipe.adapt.learning_rate == 2e-4


def test_lower_is_better_for_perplexity(tmp_path: Path) -> None:
    found = find(recipe(task="text-generation", method="lora"), Curves(lambda recipe: 10 / recipe.lora.rank), tmp_path)
    assert found.facts["metric"] == "perplexity"
    assert found.recipe.lora.rank == 32
    assert found.facts["trials"][found.facts["kept"]]["value"] == 10 / 32
    assert "adapt.label_smoothing" not in found.facts["keys"], "it would be in the perplexity"


def test_trials_that_diverge_are_told_and_left(tmp_path: Path) -> None:
    def value(recipe: Recipe) -> float:
        return math.nan if recipe.adapt.learning_rate > 1.5e-4 else 0.5

    found = find(recipe(), Curves(value), tmp_path)
    trials = found.facts["trials"]
    assert trials[0]["state"] == search.DIVERGED and trials[0]["value"] is None
    assert found.defaults is None
    assert found.recipe.adapt.learning_rate <= 1.5e-4
    json.dumps(found.facts, allow_nan=False)
    with pytest.raises(StageError, match="every trial diverged"):
        find(recipe(), Curves(lambda recipe: math.nan), tmp_path / "all")


def test_another_failure_of_a_trial_is_a_failure(tmp_path: Path) -> None:
    def value(recipe: Recipe) -> float:
        raise StageError("out of memory with one row at a time")

    with pytest.raises(StageError, match="out of memory"):
        find(recipe(), Curves(value), tmp_path)


def test_only_the_trainings_that_may_be_asked_for_stay(tmp_path: Path) -> None:
    found = find(recipe(), Curves(near(7e-4)), tmp_path)
    assert found.defaults is not None
    assert {path.name for path in tmp_path.iterdir()} == {search.KEPT, found.scratch.name, found.defaults.name}
    assert (found.scratch / "weights").read_text() == repr(found.recipe.adapt)


def test_a_limit_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100_000, 30))  # each trial takes half a minute
    monkeypatch.setattr(search.time, "monotonic", lambda: next(clock))
    with progress.collecting() as notes:
        found = find(recipe(search__minutes=2.1), Curves(near(7e-4)), tmp_path)
    assert len(found.facts["trials"]) == 5
    assert "search: 2.1 minutes are over after 5 trials" in notes


def test_what_the_recipe_says_is_kept(tmp_path: Path) -> None:
    asked = recipe(adapt__learning_rate=5e-4, adapt__epochs=3)
    with progress.collecting() as notes:
        found = find(asked, Curves(near(7e-4)), tmp_path)
    assert {(one["settings"].keys() == {"adapt.label_smoothing"}) for one in found.facts["trials"]} == {True}
    assert sorted(one["settings"]["adapt.label_smoothing"] for one in found.facts["trials"]) == [0, 0.1, 0.2], "each once"
    assert "search: there are no other settings to try" in notes
    assert found.recipe.adapt.learning_rate == 5e-4


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, ["adapt.learning_rate", "adapt.epochs", "adapt.label_smoothing"]),
        ({"method": "head"}, ["adapt.learning_rate", "adapt.epochs", "adapt.label_smoothing"]),
        ({"method": "few-shot"}, ["adapt.learning_rate", "adapt.epochs"]),
        ({"method": "lora"}, ["adapt.learning_rate", "adapt.epochs", "adapt.label_smoothing", "lora.rank"]),
        ({"method": "lora", "lora__rank": 4, "adapt__learning_rate": 1e-3}, ["adapt.epochs", "adapt.label_smoothing"]),
        ({"task": "text-regression"}, ["adapt.learning_rate", "adapt.epochs"]),
        ({"task": "token-classification"}, ["adapt.learning_rate", "adapt.epochs", "adapt.label_smoothing"]),
        ({"task": "text-generation", "method": "qlora"}, ["adapt.learning_rate", "adapt.epochs", "lora.rank"]),
    ],
)
def test_what_is_varied(changes: dict[str, Any], keys: list[str]) -> None:
    assert search.varied(recipe(**changes)) == keys


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search__trials": 1}, "nothing is compared"),
        ({"adapt__max_steps": 10}, "with adapt.max_steps = 10"),
        ({"search__trials": 0, "search__minutes": 5}, "no trials"),
        ({"method": "none"}, "trained elsewhere"),
        ({"adapt__learning_rate": 1e-3, "adapt__epochs": 2, "adapt__label_smoothing": 0.0}, "nothing is left to search"),
    ],
)
def test_searches_that_could_find_nothing(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said) as raised:
        search.check(recipe(**changes))
    assert raised.value.mend


def test_without_a_search_there_is_nothing_to_check() -> None:
    search.check(recipe(search__trials=0, adapt__max_steps=5))
