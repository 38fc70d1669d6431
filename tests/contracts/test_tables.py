"""Every row of every table names code that is there; every target loads; every recipe key is reachable."""

from __future__ import annotations

from importlib import import_module
from inspect import signature

import pytest

from edgetune import recipe, target
from edgetune.cli import app
from edgetune.cli.options import flag, kind_of
from edgetune.methods import METHODS
from edgetune.profile import FAMILIES
from edgetune.quant import SCHEMES, profile
from edgetune.runtime.runners import RUNNERS
from edgetune.table import resolve
from edgetune.tasks import TASKS


@pytest.mark.parametrize("name", METHODS)
def test_methods(name: str) -> None:
    method = METHODS[name]
    module = import_module(method.module)
    for function in ("attach", "save", "restore", "merge"):
        assert callable(getattr(module, function)), f"{method.module} lacks {function}"
    assert method.name == name
    assert method.title
    assert method.when
    assert set(method.defaults) <= set(FAMILIES)
    assert all(d.epochs > 0 and d.batch_size > 0 and d.learning_rate > 0 for d in method.defaults.values())


@pytest.mark.parametrize("name", TASKS)
def test_tasks(name: str) -> None:
    task = TASKS[name]
    for function in ("encode", "collate", "loss", "score", "metrics"):
        assert callable(getattr(task.module, function)), f"{name} lacks {function}"
    import json

    from edgetune.methods.model import auto_class

    assert callable(auto_class(name).from_pretrained)
    assert set(task.columns) - task.optional <= set(json.loads(task.example)), "the example is a row of the task"
    assert any(task.family in method.defaults for method in METHODS.values())


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes(name: str) -> None:
    scheme = SCHEMES[name]
    assert scheme.name == name
    assert callable(resolve(scheme.function))
    assert scheme.suffix in ("", "_fp16", "_int8", "_uint8", "_quantized", "_q4", "_q4f16", "_bnb4"), "transformers.js knows no other"


@pytest.mark.parametrize("name", RUNNERS)
def test_runners(name: str) -> None:
    runner = RUNNERS[name]
    assert runner.name == name
    assert runner.title
    for reference in filter(None, (runner.host, runner.turns)):
        assert set(runner.options) <= set(signature(resolve(reference)).parameters)


def test_a_family_that_a_task_has_can_be_exported() -> None:
    for family in {task.family for task in TASKS.values()}:
        assert family in SCHEMES["fp32"].families


@pytest.mark.parametrize("name", target.names())
def test_targets(name: str) -> None:
    found = profile.load(name)  # every scheme exists, fits the family and the runtime; nothing contradicts
    assert found.name == name
    assert found.title
    assert found.verified
    for schemes in filter(None, map(found.schemes, FAMILIES)):
        assert schemes[-1] == "fp32", "the last resort loses nothing"
        assert len(set(schemes)) == len(schemes)


def test_every_provider_says_where_to_get_it() -> None:
    """run.py is one file and has a table of its own."""
    from edgetune.cli.bundles import PROVIDERS as completed
    from edgetune.profile import PROVIDERS
    from edgetune.runtime.worker import INSTALL

    assert PROVIDERS.keys() == INSTALL.keys() == set(completed)


def test_the_profiles_of_this_version_are_there() -> None:
    cpus = {"x86_64", "x86_64-vnni", "x86_64-amx", "arm64", "arm64-i8mm", "rpi4", "rpi5"}
    systems = {"android", "android-xnnpack", "ios", "ios-coreml", "macos", "macos-coreml", "windows", "windows-directml"}
    others = {"qualcomm-htp", "cuda", "tensorrt", "jetson", "web-wasm", "web-webgpu"}
    assert cpus | systems | others <= set(target.names())


@pytest.mark.parametrize("name", app.COMMANDS)
def test_commands(name: str) -> None:
    command = app.load(name)
    summary = app.COMMANDS[name][1]
    assert command.help.startswith(summary)
    for part in getattr(command, "commands", {"": command}).values():
        options = {option for parameter in part.params for option in parameter.opts}
        assert {"--json", "--quiet", "--verbose", "--debug"} <= options, "every command takes the flags that are everywhere"
        assert part.help


VALUES = {int: "3", float: "0.5", str: "a word", bool: "true"}


@pytest.mark.parametrize("key", recipe.keys())
def test_every_key_is_reached_by_set_and_survives_the_file(key: str) -> None:
    from typing import get_args

    kind = kind_of(key)
    text = VALUES.get(kind) or (get_args(kind)[0] if isinstance(get_args(kind)[0], str) else "one,two")
    made = recipe.load(None, recipe.parse_settings([f"{key}={text}"]))
    value = made
    for part in key.split("."):
        value = getattr(value, part)
    assert value in (3, 0.5, "a word", True, ("one", "two"), text, (text,))
    import tomllib

    assert recipe.validate(tomllib.loads(recipe.dump(made)), "dump") == made


def test_flags_are_unique_and_described() -> None:
    flags = list(map(flag, recipe.keys()))
    assert len(flags) == len(set(flags))
    assert all(recipe.keys().values())


def test_run_has_a_flag_for_every_key() -> None:
    options = {option: parameter.help for parameter in app.load("run").params for option in parameter.opts}
    for key, description in recipe.keys().items():
        assert options[flag(key)].startswith(description), "help is the recipe's own description"
