from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edgetune import recipe, target
from edgetune.methods import METHODS
from edgetune.tasks import TASKS


@pytest.mark.parametrize("task", TASKS)
def test_what_init_writes_is_a_complete_recipe(edgetune, tmp_path: Path, task: str) -> None:
    file = tmp_path / "recipe.toml"
    answer = edgetune("init", file, "--task", task, "--data", "my/data.csv")
    assert answer.code == 0
    assert "edgetune run" in answer.err
    made = recipe.load(file)
    assert made.task == task
    assert made.data.path == "my/data.csv"
    assert made.output == "runs/data"
    assert made.model
    assert made.export.targets == (target.detect(),)
    assert TASKS[task].family in METHODS[made.method].defaults
    text = file.read_text()
    for key, description in recipe.keys().items():
        assert f"{key.rpartition('.')[2]} =" in text
        assert description in text


def test_without_flags_it_is_the_demo(edgetune, tmp_path: Path, checkout: Path) -> None:
    answer = edgetune("init", tmp_path / "r.toml", "--json")
    assert answer.json == {
        "path": str(tmp_path / "r.toml"),
        "task": "text-classification",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
    }
    assert (checkout / tomllib.loads((tmp_path / "r.toml").read_text())["data"]["path"]).is_dir()


def test_init_overwrites_nothing(edgetune, tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text("seed = 5\n")
    answer = edgetune("init", file)
    assert answer.code == 2
    assert "overwrites nothing" in answer.err
    assert file.read_text() == "seed = 5\n"


def test_an_unknown_task_or_folder(edgetune, tmp_path: Path) -> None:
    answer = edgetune("init", tmp_path / "r.toml", "--task", "text-clasification")
    assert answer.code == 2
    assert 'did you mean "text-classification"?' in answer.err
    assert not (tmp_path / "r.toml").exists()
    answer = edgetune("init", tmp_path / "nowhere" / "r.toml")
    assert answer.code == 2
    assert "cannot write" in answer.err
