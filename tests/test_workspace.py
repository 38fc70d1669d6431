"""A run directory: stages are done once, again when something changed, and never twice at the same time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgetune import recipe, workspace
from edgetune.artifact import Artifact, folder_digest
from edgetune.errors import RunError
from edgetune.workspace import Workspace, existing, opened, write_json, write_text


@pytest.fixture
def run(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def writing(text: str, calls: list[str] | None = None) -> Callable[[Path], Mapping[str, Any]]:
    def make(out: Path) -> Mapping[str, Any]:
        (out / "file.txt").write_text(text)
        if calls is not None:
            calls.append(text)
        return {"said": text}

    return make


def test_a_stage_is_done_once(run: Workspace) -> None:
    calls: list[str] = []
    made = [run.stage("one", Artifact, "place", writing("a", calls), key={"k": 1}) for _ in range(2)]
    assert calls == ["a"]
    assert made[0] == made[1]
    assert made[0].facts == {"said": "a"}
    assert made[0].digest == folder_digest(run.path / "place")
    assert not list((run.path / ".work").iterdir())


@pytest.mark.parametrize("change", ["key", "parent", "content", "extra file", "deleted"])
def test_and_again_when_something_changed(run: Workspace, change: str) -> None:
    calls: list[str] = []
    parent = run.stage("zero", Artifact, "before", writing("p"), key={})
    run.stage("one", Artifact, "place", writing("a", calls), key={"k": 1}, parents=[parent])
    key, place = {"k": 1}, run.path / "place" / "file.txt"
    if change == "key":
        key = {"k": 2}
    elif change == "parent":
        parent = run.stage("zero", Artifact, "before", writing("q"), key={"other": 1})
    elif change == "content":
        place.write_text("b")
    elif change == "extra file":
        (run.path / "place" / "more.txt").touch()
    else:
        place.unlink()
    run.stage("one", Artifact, "place", writing("a", calls), key=key, parents=[parent])
    assert calls == ["a", "a"]
    assert [path.name for path in (run.path / "place").iterdir()] == ["file.txt"]
    assert place.read_text() == "a"


def test_scratch_survives_a_failure_and_what_was_begun_does_not(run: Workspace) -> None:
    def failing(out: Path) -> Mapping[str, Any]:
        (out.parent / "checkpoint").write_text("step 3")
        (out / "half.txt").touch()
        raise OSError("the end")

    def resuming(out: Path) -> Mapping[str, Any]:
        return {"found": (out.parent / "checkpoint").read_text(), "out": sorted(p.name for p in out.iterdir())}

    with pytest.raises(OSError, match="the end"):
        run.stage("one", Artifact, "place", failing, key={})
    assert run.finished("one", Artifact, "place") is None
    assert run.stage("one", Artifact, "place", resuming, key={}).facts == {"found": "step 3", "out": []}


def test_scratch_of_another_key_is_not_used(run: Workspace) -> None:
    def failing(out: Path) -> Mapping[str, Any]:
        (out.parent / "checkpoint").touch()
        raise OSError

    with pytest.raises(OSError):
        run.stage("one", Artifact, "place", failing, key={"k": 1})
    found = run.stage("one", Artifact, "place", lambda out: {"there": (out.parent / "checkpoint").exists()}, key={"k": 2})
    assert found.facts == {"there": False}


@pytest.mark.parametrize("rename", [1, 2])
def test_killed_between_two_renames(run: Workspace, monkeypatch: pytest.MonkeyPatch, rename: int) -> None:
    """The old output is moved away, then the new one is put in its place; neither is taken for the other."""
    run.stage("one", Artifact, "place", writing("old"), key={"k": 1})
    original, calls = os.replace, iter(range(1, 100))

    def dying(*arguments: Any) -> None:
        original(*arguments)
        if next(calls) == rename:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(KeyboardInterrupt):
            run.stage("one", Artifact, "place", writing("new"), key={"k": 2})
    for key, text in ((2, "new"), (1, "old")):
        made = run.stage("one", Artifact, "place", writing(text), key={"k": key})
        assert (run.path / "place" / "file.txt").read_text() == text == made.facts["said"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"stages": 3}', "\udcff"])
def test_a_damaged_manifest_is_told(run: Workspace, text: str) -> None:
    path = run.path / "manifest.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RunError, match=r"manifest\.json is damaged") as raised:
        run.stage("one", Artifact, "place", writing("a"), key={})
    assert raised.value.mend is not None and raised.value.mend.startswith(f"delete {path}")
    path.unlink()
    run.stage("one", Artifact, "place", writing("a"), key={})


def test_notes_tools_and_costs_are_kept(run: Workspace) -> None:
    from edgetune import progress

    def make(out: Path) -> Mapping[str, Any]:
        progress.note("a fact")
        progress.warn("a warning")
        return {}

    run.stage("one", Artifact, "place", make, key={})
    entry = run.manifest["stages"]["one"]
    assert entry["notes"] == ["a fact", "a warning"]
    assert entry["seconds"] >= 0
    assert entry["peak_rss_bytes"] > 1e6
    assert "pydantic" not in entry["tools"] and entry["tools"]["torch"]


def asked(path: Path, **keys: Any) -> recipe.Recipe:
    return recipe.load(None, {"output": str(path / "run"), "method": "full", **keys})


def begin(request: recipe.Recipe) -> None:
    """A run with one finished stage."""
    with opened(request) as run:
        run.stage("one", Artifact, "place", writing("a"), key={})


def test_a_run_is_for_one_training_recipe(tmp_path: Path) -> None:
    begin(asked(tmp_path, seed=1))
    with (
        pytest.raises(RunError, match="another training recipe") as raised,
        opened(asked(tmp_path, **{"seed": 2, "lora.rank": 8, "data.text": "body", "export.max_drop": 0.5})),
    ):
        pass
    assert raised.value.details == (
        "data.text: '' in the run, 'body' asked",
        "lora.rank: 0 in the run, 8 asked",
        "seed: 1 in the run, 2 asked",
    )
    assert existing(tmp_path / "run").recipe == asked(tmp_path, seed=1), "nothing was written"


def test_so_is_one_whose_manifest_was_deleted(tmp_path: Path) -> None:
    """As the error about a damaged manifest advises."""
    begin(asked(tmp_path, seed=1))
    (tmp_path / "run" / "manifest.json").unlink()
    with pytest.raises(RunError, match="another training recipe"), opened(asked(tmp_path, seed=2)):
        pass
    begin(asked(tmp_path, seed=1))


def test_a_run_that_fails_before_a_stage_is_done_leaves_nothing(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(KeyboardInterrupt), opened(asked(folder)) as run:
            (run.path / ".work" / "one").mkdir(parents=True)
            raise KeyboardInterrupt
        assert not (folder / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(KeyboardInterrupt), opened(asked(tmp_path)):
        raise KeyboardInterrupt
    assert not list((tmp_path / "run").iterdir()), "a folder that was there stays"
    begin(asked(tmp_path, seed=2))
    with pytest.raises(KeyboardInterrupt), opened(asked(tmp_path, seed=2)):
        raise KeyboardInterrupt
    assert existing(tmp_path / "run").finished("one", Artifact, "place") is not None, "and so does a stage that is done"


def test_export_keys_may_change(tmp_path: Path) -> None:
    begin(asked(tmp_path))
    with opened(asked(tmp_path, **{"export.max_drop": 0.5})) as run:
        assert run.recipe.export.max_drop == 0.5


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    with opened(asked(tmp_path)), pytest.raises(RunError, match="in use by another edgetune process"), opened(asked(tmp_path)):
        pass
    with opened(asked(tmp_path)):
        pass


@pytest.mark.parametrize("there", ["a file", "another folder"])
def test_what_is_no_run_is_left_alone(tmp_path: Path, there: str) -> None:
    path = tmp_path / "run"
    if there == "a file":
        path.touch()
    else:
        path.mkdir()
        (path / "thesis.tex").touch()
    with pytest.raises(RunError, match="is not a run directory"), opened(asked(tmp_path)):
        pass
    assert path.is_file() or [p.name for p in path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("left", [(), (".lock",), (".lock", ".recipe.toml.tmp"), (".lock", ".work", "recipe.toml")])
def test_a_run_that_was_killed_before_its_recipe_was_written(tmp_path: Path, left: tuple[str, ...]) -> None:
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).mkdir() if name == ".work" else (tmp_path / "run" / name).touch()
    with opened(asked(tmp_path)) as run:
        assert run.recipe == asked(tmp_path)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot write to"), opened(asked(tmp_path, output=str(tmp_path / "file" / "run"))):
        pass


def test_existing_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no recipe\.toml"):
        existing(tmp_path)


def test_a_write_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"ä": 1})
    assert json.loads(path.read_text("utf-8")) == {"ä": 1}

    def dying(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(workspace.os, "fsync", dying)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    assert json.loads(path.read_text("utf-8")) == {"ä": 1}
