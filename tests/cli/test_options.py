from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgetune import recipe as recipes
from edgetune.cli.options import flag


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the last `adapt` or `run` asked the pipeline for; the run that it returns has an empty report."""
    from edgetune import pipeline

    seen: dict[str, Any] = {}

    def run(recipe: recipes.Recipe, until: str) -> Path:
        seen.update(recipe=recipe, until=until)
        (tmp_path / "report.json").write_text("{}")
        return tmp_path

    monkeypatch.setattr(pipeline, "run", run)
    return seen


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model", "--model"),
        ("data.path", "--data"),
        ("data.on_bad_row", "--on-bad-row"),
        ("adapt.batch_size", "--batch-size"),
        ("lora.rank", "--lora-rank"),
        ("export.targets", "--target"),
        ("export.max_drop", "--max-drop"),
        ("export.reject_below", "--reject-below"),
        ("export.max_size_mb", "--max-size"),
        ("export.max_latency_ms", "--max-latency"),
    ],
)
def test_names_of_flags(key: str, name: str) -> None:
    assert flag(key) == name


def test_flags_become_recipe_keys(edgetune, asked) -> None:
    answer = edgetune(
        *("adapt", "--model", "m", "--data", "/d", "--task", "text-classification", "--method", "lora", "--output", "o", "--seed", "7"),
        *("--epochs", "3", "--learning-rate", "1e-3", "--no-baselines", "--lora-rank", "4", "--set", "lora.alpha=8", "--trust-remote-code"),
    )
    assert answer.code == 0, answer.err
    made = asked["recipe"]
    assert asked["until"] == "adapt"
    assert (made.model, made.data.path, made.task, made.method, made.output, made.seed) == (
        "m",
        "/d",
        "text-classification",
        "lora",
        "o",
        7,
    )
    assert (made.adapt.epochs, made.adapt.learning_rate, made.adapt.baselines) == (3, 1e-3, False)
    assert (made.lora.rank, made.lora.alpha) == (4, 8)
    assert made.trust_remote_code is True


def test_what_is_not_given_keeps_its_default(edgetune, asked) -> None:
    edgetune("adapt")
    assert asked["recipe"] == recipes.Recipe()


def test_flags_go_over_the_file_and_set_over_the_flags(edgetune, asked, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text('seed = 1\n[adapt]\nepochs = 1\nbatch_size = 1\nmax_steps = 1\n[export]\ntargets = ["arm64"]\n')
    edgetune("run", file, "--epochs", "2", "--batch-size", "2", "--set", "adapt.batch_size=3", "--set", "adapt.accumulation=2")
    made = asked["recipe"]
    assert asked["until"] == "benchmark"
    assert (made.seed, made.adapt.max_steps, made.adapt.epochs, made.adapt.batch_size, made.adapt.accumulation) == (1, 1, 2, 3, 2)
    assert made.export.targets == ("arm64",)


def test_targets_repeat_and_are_kept_once(edgetune, asked, tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("")
    edgetune("run", file, "--target", "arm64", "--target", "mine.toml", "--target", "arm64")
    assert asked["recipe"].export.targets == ("arm64", "mine.toml")


def test_all_problems_are_told_together(edgetune) -> None:
    answer = edgetune("adapt", "--epochs", "many", "--on-bad-row", "ignore", "--set", "lora.rank=-1")
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("error: 3 problems in the recipe")
    for key in ("adapt.epochs", "data.on_bad_row", "lora.rank"):
        assert key in answer.err


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("lora.rnak=3", '(did you mean "lora.rank"?)'),
        ("lora.rank", "expected key=value"),
        ("=3", "expected key=value"),
    ],
)
def test_a_wrong_setting(edgetune, setting: str, says: str) -> None:
    answer = edgetune("adapt", "--set", setting)
    assert answer.code == 2
    assert says in answer.err


@pytest.mark.parametrize("arguments", [("--json", "targets", "list"), ("targets", "--json", "list"), ("targets", "list", "--json")])
def test_flags_that_are_everywhere_may_stand_anywhere(edgetune, arguments: tuple[str, ...]) -> None:
    answer = edgetune(*arguments)
    assert answer.code == 0
    assert {row["name"] for row in answer.json} >= {"arm64", "x86_64"}


def test_modes_do_not_outlive_a_command(edgetune) -> None:
    edgetune("targets", "list", "--json", "--quiet")
    answer = edgetune("targets", "list")
    assert "title" in answer.out
    with pytest.raises(json.JSONDecodeError):
        _ = answer.json


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("edgetune ex", {"export"}),
        ("edgetune adapt --method q", {"qlora"}),
        ("edgetune adapt --task text-g", {"text-generation"}),
        ("edgetune export RUN --target x86_64-v", {"x86_64-vnni"}),
        ("edgetune targets show arm", {"arm64", "arm64-i8mm"}),
        ("edgetune adapt --on-bad-row d", {"drop"}),
        ("edgetune adapt --learning", {"--learning-rate"}),
    ],
)
def test_the_shell_completes(words: str, completed: set[str]) -> None:
    import os
    import subprocess
    import sys

    environment = {
        **os.environ,
        "_EDGETUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    program = "import sys; sys.argv[0] = 'edgetune'; from edgetune.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == completed, done.stderr
