"""A recipe survives its file, and says everything that is wrong with it at once."""

from __future__ import annotations

import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from edgetune import recipe
from edgetune.errors import RecipeError
from edgetune.recipe import ADDED, Recipe, changed
from edgetune.sections import DataKeys

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def values(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Any valid `model`, from the types and bounds of its fields."""
    return st.builds(model, **{name: value(field.annotation, field.metadata) for name, field in model.model_fields.items()})


def value(kind: Any, bounds: list[Any]) -> st.SearchStrategy[Any]:
    low = next((b.ge for b in bounds if hasattr(b, "ge")), next((b.gt for b in bounds if hasattr(b, "gt")), None))
    open_low = any(hasattr(b, "gt") for b in bounds)
    high = next((b.le for b in bounds if hasattr(b, "le")), next((b.lt for b in bounds if hasattr(b, "lt")), None))
    open_high = any(hasattr(b, "lt") for b in bounds)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return values(kind)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(typing.get_args(kind))
    if kind == tuple[str, ...]:
        return st.lists(TEXTS, max_size=3).map(tuple)
    if type(None) in typing.get_args(kind):
        return st.none() | value(next(k for k in typing.get_args(kind) if k is not type(None)), bounds)
    if kind is float:
        return st.floats(low, high, exclude_min=open_low, exclude_max=open_high, allow_nan=False)
    return {bool: st.booleans(), int: st.integers(low or 0, 2**40), str: TEXTS}[kind]


@given(values(Recipe))
def test_what_is_dumped_loads_as_it_was(made: Recipe) -> None:
    text = recipe.dump(made)
    assert recipe.validate(tomllib.loads(text), "dump") == made
    assert recipe.dump(recipe.validate(tomllib.loads(text), "dump")) == text


@given(values(Recipe))
def test_and_from_a_file_too(tmp_path_factory: pytest.TempPathFactory, made: Recipe) -> None:
    """Newlines of every kind survive: a file is read with universal newlines."""
    from edgetune.workspace import write_text

    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    write_text(path, recipe.dump(made))
    assert recipe.load(path) == made


def test_every_key_is_written_with_its_description() -> None:
    text = recipe.dump(Recipe())
    for key, description in recipe.keys().items():
        name = key.rpartition(".")[2]
        line = next(line for line in text.splitlines() if line.removeprefix("# ").split(" ")[0] == name and line.endswith(description))
        assert line


def test_all_problems_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('tsak = "x"\nseed = -1\n[lora]\nrnak = 4\n[adapt]\nepochs = "many"\ndropout = 1.0\nprecision = "fp16"\n')
    with pytest.raises(RecipeError, match=r"6 problems in the recipe") as raised:
        recipe.load(path)
    told = "\n".join(raised.value.details)
    for said in (
        'tsak: unknown key (did you mean "task"?)',
        'lora.rnak: unknown key (did you mean "lora.rank"?)',
        "seed: input should be greater than or equal to 0 (got -1)",
        "adapt.epochs: input should be a valid integer",
        "adapt.dropout: input should be less than 1 (got 1.0)",
        "adapt.precision: input should be 'auto', 'fp32' or 'bf16' (got 'fp16')",
    ):
        assert said in told
    assert raised.value.exit_code == 2


def test_all_unknown_overrides_are_told_together() -> None:
    with pytest.raises(RecipeError, match=r'unknown key "adapt.epoch" \(did you mean "adapt.epochs"\?\)') as raised:
        recipe.load(None, {"adapt.epoch": 3, "seed": 1, "modle": "x"})
    assert raised.value.details == ('unknown key "modle" (did you mean "model"?)',)


def test_a_section_that_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('data = "rows.csv"\n')
    with pytest.raises(RecipeError) as raised:
        recipe.load(path, {"data.path": "other.csv"})
    assert raised.value.details[0].startswith("data: input should be a valid dictionary")


def test_overrides_go_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('seed = 3\n[lora]\nrank = 4\nalpha = 8\n[export]\ntargets = ["arm64"]\n')
    made = recipe.load(path, {"lora.rank": "32", "export.targets": "x86_64, arm64,", "adapt.baselines": "false"})
    assert (made.seed, made.lora.rank, made.lora.alpha) == (3, 32, 8)
    assert made.export.targets == ("x86_64", "arm64")
    assert made.adapt.baselines is False


@pytest.mark.parametrize("text", ["seed = ", "seed = 1\nseed = 2", "\udcff"])
def test_a_file_that_is_no_toml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RecipeError, match=r"recipe\.toml is not valid TOML"):
        recipe.load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no recipe at") as raised:
        recipe.load(tmp_path / "recipe.toml")
    assert raised.value.mend == "edgetune init writes one"
    with pytest.raises(RecipeError, match="cannot read the recipe"):
        recipe.load(tmp_path)


@pytest.mark.parametrize("setting", ["lora.rank", "=3", " =3"])
def test_a_setting_needs_a_key_and_a_value(setting: str) -> None:
    with pytest.raises(RecipeError, match="expected key=value"):
        recipe.parse_settings([setting])


def test_a_value_may_hold_an_equals_sign() -> None:
    assert recipe.parse_settings(["data.path=a=b", "seed = 3"]) == {"data.path": "a=b", "seed": " 3"}


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().seed = 1  # type: ignore[misc]


def test_younger_keys_at_their_defaults_leave_older_runs_as_they_were() -> None:
    for name in ("data", "adapt", "lora", "augment"):
        section = getattr(Recipe(), name)
        assert not set(ADDED) & changed(section).keys()
    assert changed(DataKeys(tasks="a,b"))["tasks"] == "a,b"
