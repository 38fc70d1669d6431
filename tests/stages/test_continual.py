"""A finished run learns more: new labels beside the old ones, what replay and elastic weights keep, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgetune import data, pipeline
from edgetune.artifact import folder_digest
from edgetune.data.columns import key
from edgetune.data.earlier import LEAST, MARK
from edgetune.errors import DataError, RecipeError, RequestError, RunError
from edgetune.recipe import Recipe

OLD, NEW = ("door", "heat", "lights"), "music"
QUICK = {"adapt__learning_rate": 5e-3, "adapt__epochs": 1, "adapt__batch_size": 4}  # one evaluation, so that no better epoch is kept
Continue = Callable[..., Path]


def rows(labels: tuple[str, ...], count: int, seed: int) -> list[tuple[str, str]]:
    return [row for row in tiny.sentences(count, seed) if row[1] in labels]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a merged run on three labels, and data with a fourth."""
    folder = tmp_path_factory.mktemp("continual")
    tiny.bert(folder / "model")
    tiny.table(folder / "data.csv", rows(OLD, 400, 0) + tiny.sentences(0, outside=24))
    tiny.table(folder / "new.csv", rows((NEW,), 400, 7))
    pipeline.run(tiny.recipe(folder, output=str(folder / "old")), "merge")
    assert report(folder / "old")["adapt"]["test"]["accuracy"] > 0.9
    return folder


def more(folder: Path, output: Path, **changes: Any) -> Recipe:
    keys = {"data__path": str(folder / "new.csv"), "continual__run": str(folder / "old"), "output": str(output)}
    return tiny.recipe(folder, **{"model": "", "task": "", "method": "", **QUICK, **keys, **changes})


def report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def made(folder: Path) -> Continue:
    """A continued run by the keys that differ; each is made once."""
    done: dict[str, Path] = {}

    def run(**changes: Any) -> Path:
        name = "-".join(f"{key}={value}" for key, value in changes.items()).replace("/", "_") or "default"
        if name not in done:
            done[name] = pipeline.run(more(folder, folder / "runs" / name, **changes), "merge")
        return done[name]

    return run


def test_a_new_label_is_learned_and_the_old_ones_stay(folder: Path, made: Continue) -> None:
    before = folder_digest(folder / "old")
    found = report(made())["adapt"]
    kept = found["continual"]
    assert kept["new_labels"] == [NEW]
    assert kept["new"]["accuracy"] > 0.9
    assert kept["after"]["accuracy"] > kept["before"]["accuracy"] - 0.05
    assert kept["before"] == pytest.approx(report(folder / "old")["adapt"]["test"]), "the old model, on its own test rows"
    assert kept["difference"]["value"] == pytest.approx(kept["after"]["accuracy"] - kept["before"]["accuracy"])
    assert kept["rows"]["old"] + kept["rows"]["new"] == report(made())["prepare"]["rows"]["test"]
    assert folder_digest(folder / "old") == before, "the run that is continued was changed"


def test_without_replay_the_old_labels_are_forgotten(made: Continue) -> None:
    """So that a replay which replays nothing is seen."""
    nothing, again = (report(made(**keys))["adapt"]["continual"] for keys in ({"continual__replay": 0}, {}))
    assert nothing["after"]["accuracy"] < 0.3 < 0.9 < again["after"]["accuracy"]
    assert nothing["difference"]["ci95"][1] < -0.3
    assert nothing["difference"]["flips"]["right_to_wrong"] > nothing["difference"]["flips"]["wrong_to_right"]


def test_elastic_weights_forget_less_than_nothing_does(made: Continue) -> None:
    nothing, held = (report(made(continual__replay=0, **keys))["adapt"]["continual"] for keys in ({}, {"continual__ewc": 1e4}))
    assert held["after"]["accuracy"] > nothing["after"]["accuracy"] + 0.2
    assert held["new"]["accuracy"] > 0.9


def test_labels_keep_their_places(folder: Path, made: Continue) -> None:
    from edgetune.methods.model import load_merged

    for place in ("checkpoint", "merged"):
        config = json.loads((made() / place / "config.json").read_text("utf-8"))
        assert config["id2label"] == {str(i): label for i, label in enumerate((*OLD, NEW))}
    assert report(made())["prepare"]["labels"] == [*OLD, NEW]
    assert load_merged(made() / "merged", "text-classification").classifier.weight.shape == (4, 32)


def test_rows_stay_in_the_split_that_they_were_in(folder: Path, made: Continue) -> None:
    old, new = ({split: data.rows(run / "data", split) for split in data.SPLITS} for run in (folder / "old", made()))
    for split in ("validation", "test"):
        assert [{k: v for k, v in row.items() if k != MARK} for row in new[split] if MARK in row] == old[split]
    again = {key(row) for row in new["train"] if MARK in row}
    assert again <= {key(row) for row in old["train"]}
    assert not {key(row) for row in new["train"]} & {key(row) for split in ("validation", "test") for row in (*old[split], *new[split])}
    fresh = Counter(row["label"] for row in new["train"] if MARK not in row)
    each = max(LEAST, round(float(np.median(list(fresh.values())))))
    had, replayed = (Counter(row["label"] for row in rows if MARK in row or rows is old["train"]) for rows in (old["train"], new["train"]))
    assert replayed == {label: min(each, count) for label, count in had.items()}, "as many of each label as a new one has"
    facts = report(made())["prepare"]
    assert facts["earlier"]["rows"]["train"] == len(again) and facts["earlier"]["of"] == len(old["train"])
    assert facts["out_of_scope"] == "out_of_scope", "known from the run alone"


@pytest.mark.parametrize(("method", "rate"), [("head", 1e-2), ("lora", 3e-3)])
def test_other_methods_go_on_too(made: Continue, method: str, rate: float) -> None:
    kept = report(made(method=method, adapt__learning_rate=rate, adapt__epochs=2))["adapt"]["continual"]
    assert kept["new"]["accuracy"] > 0.5
    assert kept["after"]["accuracy"] > 0.8


def test_a_run_is_continued_twice(folder: Path, made: Continue, tmp_path: Path) -> None:
    """Rows out of scope and four labels are known from the second run; new rows of old labels need no row of the others."""
    tiny.table(tmp_path / "third.csv", rows(OLD[:1], 300, 11) + [(f"tax {text}", "taxes") for text, _ in rows(OLD, 120, 5)])
    third = pipeline.run(more(folder, tmp_path / "third", continual__run=str(made()), data__path=str(tmp_path / "third.csv")), "merge")
    found = report(third)
    assert found["prepare"]["labels"] == [*OLD, NEW, "taxes"]
    assert found["adapt"]["continual"]["rows"]["old"] == report(made())["prepare"]["rows"]["test"]
    assert found["adapt"]["continual"]["after"]["accuracy"] > 0.8
    assert found["recipe"]["model"] == str(folder / "model"), "the base of all"


def test_new_rows_that_the_run_chose_or_tested_with(folder: Path, tmp_path: Path) -> None:
    old = {split: [(row["text"], row["label"]) for row in data.rows(folder / "old" / "data", split)] for split in data.SPLITS}
    fresh = rows((NEW,), 200, 9)
    (tmp_path / "data").mkdir()
    tiny.table(tmp_path / "data" / "train.csv", fresh[:40] + old["test"][:3] + old["validation"][:2])
    tiny.table(tmp_path / "data" / "validation.csv", fresh[40:45])
    tiny.table(tmp_path / "data" / "test.csv", fresh[45:] + old["train"][:4] + old["test"][3:5])
    run = pipeline.run(more(folder, tmp_path / "run", data__path=str(tmp_path / "data"), adapt__max_steps=1), "adapt")
    facts, test = report(run)["prepare"], data.rows(run / "data", "test")
    reasons = [one["reason"] for one in facts["dropped"]]
    assert reasons.count(f"also in test of {folder / 'old'}") == 5
    assert reasons.count(f"also in validation of {folder / 'old'}") == 2
    assert sum(row.get("overlap", False) for row in test) == 4, "the run has learned them"
    assert "test_without_overlap" in report(run)["adapt"]
    assert facts["rows"]["test"] == len(old["test"]) + len(fresh[45:]) + 4


def test_killed_and_resumed(folder: Path, made: Continue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With elastic weights, which are estimated again."""
    from edgetune.methods import checkpoint

    keys = {"continual__ewc": 10.0, "adapt__checkpoint_every": 3}
    whole = report(pipeline.run(more(folder, tmp_path / "whole", **keys), "adapt"))["adapt"]
    original, calls = checkpoint.save, iter(range(100))

    def dying(*arguments: Any) -> None:
        original(*arguments)
        if next(calls) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(more(folder, tmp_path / "killed", **keys), "adapt")
    again = report(pipeline.run(more(folder, tmp_path / "killed", **keys), "adapt"))
    assert any(note.startswith("resuming at step") for note in again["notes"]["adapt"])
    assert (again["adapt"]["history"], again["adapt"]["continual"]) == (whole["history"], whole["continual"])


def test_nothing_is_done_twice_and_another_old_run_is_noticed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder / "old", tmp_path / "old")
    recipe = more(folder, tmp_path / "run", continual__run=str(tmp_path / "old"), adapt__max_steps=1)
    pipeline.run(recipe, "merge")
    manifest = (tmp_path / "run" / "manifest.json").read_text("utf-8")
    pipeline.run(recipe, "merge")
    pipeline.merge(tmp_path / "run")
    assert (tmp_path / "run" / "manifest.json").read_text("utf-8") == manifest
    shutil.rmtree(tmp_path / "old")
    pipeline.run(tiny.recipe(folder, output=str(tmp_path / "old"), adapt__epochs=1), "merge")
    pipeline.run(recipe, "merge")
    assert (tmp_path / "run" / "manifest.json").read_text("utf-8") != manifest


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"model": "another"}, RecipeError, "is continued as it is"),
        ({"task": "text-regression"}, RecipeError, "is continued as it is"),
        ({"adapt__max_length": 7}, RecipeError, "is continued as it is"),
        ({"method": "few-shot"}, RecipeError, "few-shot cannot continue a run: it fits its head anew"),
        ({"method": "qlora"}, RecipeError, "qlora cannot continue a run: it would start from a model rounded to 4 bits"),
        ({"method": "lora", "continual__ewc": 1.0}, RecipeError, "lora trains none of those"),
        (
            {"continual__run": "", "continual__ewc": 1.0, "model": "m", "task": "text-classification"},
            RecipeError,
            "for a run that is continued",
        ),
        ({"continual__run": "nowhere"}, RunError, "nowhere is not a run directory"),
        ({"data__path": ""}, RecipeError, r"lacks data\.path"),
        ({"data__out_of_scope": "none"}, DataError, 'called "none", but "out_of_scope"'),
        ({"data__out_of_scope": "heat"}, DataError, "called"),
    ],
)
def test_what_cannot_be_continued(folder: Path, tmp_path: Path, changes: dict[str, Any], error: type[RequestError], said: str) -> None:
    with pytest.raises(error, match=said):
        pipeline.run(more(folder, tmp_path / "run", **changes), "adapt")
    assert not (tmp_path / "run").exists()


def test_runs_that_cannot_be_continued(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(folder / "old", old)
    recipe = more(folder, tmp_path / "run", continual__run=str(old))
    with pytest.raises(RunError, match="cannot be continued into itself"):
        pipeline.run(more(folder, old, continual__run=str(old)), "adapt")
    (old / "data" / "test.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="was changed after it was written"):
        pipeline.run(recipe, "adapt")
    shutil.rmtree(old / "merged")
    shutil.copytree(folder / "old" / "data", old / "data", dirs_exist_ok=True)
    with pytest.raises(RunError, match="is not finished: it has no merged/"):
        pipeline.run(recipe, "adapt")
    shutil.rmtree(old)
    pipeline.export(folder / "old" / "merged", {"task": "text-classification", "data.path": str(folder / "data.csv"), "output": str(old), "export.targets": "x86_64", "export.schemes": "fp32"})  # fmt: skip
    with pytest.raises(RunError, match="trained elsewhere"):
        pipeline.run(recipe, "adapt")
    assert not (tmp_path / "run").exists()


def test_rows_of_another_kind(folder: Path, tmp_path: Path) -> None:
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "text_pair", "label"), *((text, text, label) for text, label in rows((NEW,), 100, 7))])
    with pytest.raises(DataError, match=r"the new rows have label and text and text_pair, those of .* label and text"):
        pipeline.run(more(folder, tmp_path / "run", data__path=str(tmp_path / "pairs.csv")), "adapt")


def test_nothing_new(folder: Path, tmp_path: Path) -> None:
    tiny.table(tmp_path / "same.csv", [(row["text"], row["label"]) for row in data.rows(folder / "old" / "data", "test")])
    with pytest.raises(DataError, match="no new row is left in train"):
        pipeline.run(more(folder, tmp_path / "run", data__path=str(tmp_path / "same.csv")), "adapt")


def words(row: tuple[str, str], of: tuple[str, ...]) -> list[str]:
    """A tag a word: the words that tell the label, where it is one of these."""
    return [f"B-{row[1]}" if row[1] in of and word in tiny.WORDS[row[1]] else "O" for word in row[0].split()]


KINDS: dict[str, Callable[[tuple[str, str]], dict[str, Any]]] = {  # task -> a row of it
    "multi-label-classification": lambda row: {"text": row[0], "labels": [row[1], *(["polite"] if "please" in row[0] else [])]},
    "relation-extraction": lambda row: {"text": f"<e1>{row[0].split()[0]}</e1> {row[0]} <e2>it</e2>", "label": f"{row[1]}(e1,e2)"},
    "token-classification": lambda row: {"tokens": row[0].split(), "tags": words(row, tiny.LABELS)},
}


@pytest.mark.parametrize("task", KINDS)
def test_other_tasks(task: str, tmp_path: Path) -> None:
    tiny.bert(tmp_path / "model")
    for name, labels, seed in (("old", OLD, 0), ("new", (NEW,), 7)):
        made = [KINDS[task](row) for row in rows(labels, 400, seed)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
    pipeline.run(tiny.recipe(tmp_path, task=task, data__path=str(tmp_path / "old.jsonl"), output=str(tmp_path / "old")), "merge")
    old = report(tmp_path / "old")
    run = pipeline.run(more(tmp_path, tmp_path / "run", data__path=str(tmp_path / "new.jsonl"), adapt__epochs=3), "merge")
    found, metric = report(run), next(iter(old["adapt"]["test"]))
    kept = found["adapt"]["continual"]
    assert found["prepare"]["labels"][: len(old["prepare"]["labels"])] == old["prepare"]["labels"]
    assert all(NEW in label for label in kept["new_labels"]) and kept["new_labels"]
    assert kept["before"] == pytest.approx(old["adapt"]["test"])
    assert kept["new"][metric] > 0.7
    assert kept["after"][metric] > kept["before"][metric] - 0.1
    assert (
        "accuracy" not in kept["difference"]
        and kept["difference"]["ci95"][0] <= kept["difference"]["value"] <= kept["difference"]["ci95"][1]
    )


def test_a_task_without_labels(tmp_path: Path) -> None:
    tiny.bert(tmp_path / "model")
    made = [{"text": text, "score": tiny.LABELS.index(label)} for text, label in tiny.sentences(80)]
    (tmp_path / "old.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
    keys = {"task": "text-regression", "data__path": str(tmp_path / "old.jsonl"), "output": str(tmp_path / "old"), "adapt__max_steps": 1}
    pipeline.run(tiny.recipe(tmp_path, **keys), "merge")
    with pytest.raises(RecipeError, match="a run of text-regression cannot be continued"):
        pipeline.run(more(tmp_path, tmp_path / "run", data__path=str(tmp_path / "old.jsonl")), "adapt")
