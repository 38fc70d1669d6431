"""adapt --search: what wins on validation is what is kept, to the bit; test rows decide nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import methods, pipeline
from edgetune.errors import RecipeError
from edgetune.methods import checkpoint, search
from edgetune.recipe import Recipe
from edgetune.workspace import Workspace


@pytest.fixture(autouse=True)
def _bad_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate at which the toy learns next to nothing."""
    for name in ("full", "lora"):
        row = methods.METHODS[name]
        monkeypatch.setitem(methods.METHODS, name, replace(row, defaults={"encoder": methods.Defaults(3, 16, 1e-3)}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.problem(tmp_path_factory.mktemp("search"))


def asked(folder: Path, output: Path, **changes: Any) -> Recipe:
    keys = {"adapt__learning_rate": 0, "adapt__epochs": 0, "adapt__dropout": 0.1, "search__trials": 8}
    return tiny.recipe(folder, **{**keys, **changes, "output": str(output)})


def report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text("utf-8"))


def told(run: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "seconds"} for one in report(run)["adapt"]["search"]["trials"]]


def test_it_beats_a_bad_default_and_keeps_the_very_weights(folder: Path, tmp_path: Path) -> None:
    run = pipeline.run(asked(folder, tmp_path / "run"), "merge")
    facts = report(run)["adapt"]
    found, trials = facts["search"], facts["search"]["trials"]
    best = trials[found["kept"]]
    assert found["kept"] > 0 and best["value"] > trials[0]["value"] + 0.2
    assert facts["validation"]["accuracy"] == pytest.approx(best["value"]), "what was found is what is there"
    assert facts["settings"]["learning_rate"] == best["settings"]["adapt.learning_rate"]
    assert facts["settings"]["epochs"] == best["length"]
    assert found["test_of_defaults"]["accuracy"] < facts["test"]["accuracy"]
    assert not list((run / ".work").glob("adapt-*")), "the trials' scratch is gone"
    given = {key.replace(".", "__"): value for key, value in best["settings"].items()}
    plain = pipeline.run(asked(folder, tmp_path / "plain", search__trials=0, **given), "merge")
    assert "search" not in report(plain)["adapt"]
    assert facts["history"] == report(plain)["adapt"]["history"]
    assert (run / "merged" / "model.safetensors").read_bytes() == (plain / "merged" / "model.safetensors").read_bytes()
    default = pipeline.run(asked(folder, tmp_path / "default", search__trials=0), "adapt")
    assert report(default)["adapt"]["test"] == pytest.approx(found["test_of_defaults"]), "and that is what it would have been"
    page = (run / "report.html").read_text("utf-8")
    assert 'Search: <data value="8">' in page and "done, the defaults" in page


def test_killed_within_a_trial(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pipeline.run(asked(folder, tmp_path / "whole", search__trials=4), "adapt")

    class Killed(BaseException):
        pass

    original, calls = checkpoint.save, iter(range(1, 1000))

    def save(*arguments: Any) -> None:
        original(*arguments)
        if next(calls) == 8:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", save)
    recipe = asked(folder, tmp_path / "killed", search__trials=4)
    with pytest.raises(Killed):
        pipeline.run(recipe, "adapt")
    (scratch,) = (Path(recipe.output) / ".work").glob("adapt-*/trials")
    finished = json.loads((scratch / search.KEPT).read_text("utf-8"))
    assert 0 < len(finished) < 4
    run = pipeline.run(recipe, "adapt")
    assert told(run) == told(whole)
    taken = next(calls) - 9
    assert 8 + taken == sum(len(one["epochs"]) for one in told(whole)), "no epoch was trained twice"
    assert (run / "checkpoint" / "model.safetensors").read_bytes() == (whole / "checkpoint" / "model.safetensors").read_bytes()


def test_test_rows_decide_nothing(folder: Path, tmp_path: Path) -> None:
    """The same search with every label of test another: the same trials, the same choice, another test."""
    rows = tiny.sentences(240)
    following = dict(zip(tiny.LABELS, (*tiny.LABELS[1:], tiny.LABELS[0]), strict=True))
    found = []
    for name, said in (("right", rows[200:]), ("wrong", [(text, following[label]) for text, label in rows[200:]])):
        for split, part in (("train", rows[:160]), ("validation", rows[160:200]), ("test", said)):
            tiny.table(tmp_path / name / f"{split}.csv", part)
        found.append(pipeline.run(asked(folder, tmp_path / f"run-{name}", data__path=str(tmp_path / name), search__trials=5), "adapt"))
    right, wrong = found
    assert told(right) == told(wrong)
    assert report(right)["adapt"]["search"]["kept"] == report(wrong)["adapt"]["search"]["kept"]
    assert report(right)["adapt"]["test"]["accuracy"] > report(wrong)["adapt"]["test"]["accuracy"]


def test_another_rank_than_the_recipes_is_merged(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(search.CHOICES, "lora.rank", (2, 16))
    monkeypatch.setattr(
        search, "_best", lambda done, sign: next(one for one in done if one["settings"]["lora.rank"] == 2 or one is done[-1])
    )
    run = pipeline.run(asked(folder, tmp_path / "run", method="lora", search__trials=4, adapt__epochs=1), "merge")
    assert json.loads((run / "adapter" / "adapter_config.json").read_text("utf-8"))["r"] == 2
    assert report(run)["merge"]["max_logit_difference"] <= 1e-3


def test_less_is_better_of_perplexity(folder: Path, tmp_path: Path) -> None:
    run = pipeline.run(asked(folder, tmp_path / "run", task="fill-mask", search__trials=5, adapt__epochs=1), "adapt")
    facts = report(run)["adapt"]
    values = [one["value"] for one in facts["search"]["trials"] if one["state"] == search.DONE]
    assert facts["search"]["metric"] == "perplexity"
    assert len(set(values)) == len(values) == 5, "a single epoch is never given up"
    assert (
        facts["search"]["trials"][facts["search"]["kept"]]["value"]
        == min(values)
        == pytest.approx(facts["validation"]["perplexity"], rel=1e-4)
    )


def test_few_shot_is_searched_with_its_head(folder: Path, tmp_path: Path) -> None:
    keys = {"method": "few-shot", "data__shots": 6, "search__trials": 3, "adapt__epochs": 1, "adapt__learning_rate": 0}
    run = pipeline.run(asked(folder, tmp_path / "run", **keys), "merge")
    facts = report(run)["adapt"]
    assert len(facts["search"]["trials"]) == 3
    assert facts["validation"]["accuracy"] == pytest.approx(facts["search"]["trials"][facts["search"]["kept"]]["value"])


def test_without_a_search_the_stage_is_what_it_was(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[int, Any] = {}
    original = Workspace.stage

    def stage(self: Workspace, name: str, *arguments: Any, key: Any, **options: Any) -> Any:
        if name == "adapt":
            keys[self.recipe.search.trials] = key
        return original(self, name, *arguments, key=key, **options)

    monkeypatch.setattr(Workspace, "stage", stage)
    for trials in (0, 2):
        pipeline.run(asked(folder, tmp_path / f"run-{trials}", search__trials=trials, adapt__epochs=1), "adapt")
    assert "search" not in keys[0], "runs of before the search are still up to date"
    assert keys[2]["search"] == {"trials": 2, "minutes": 0.0}


def test_nothing_is_written_for_a_search_that_cannot_be(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="max_steps"):
        pipeline.run(asked(folder, tmp_path / "run", adapt__max_steps=3), "adapt")
    assert not (tmp_path / "run").exists()


def test_every_method_with_settings_to_search_reads_them() -> None:
    from edgetune.recipe import keys

    for row in methods.METHODS.values():
        assert set(row.searched) <= set(keys()) & ({search.RATE, search.EPOCHS} | search.CHOICES.keys())
