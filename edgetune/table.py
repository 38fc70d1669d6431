"""Rows of tables name their code as "package.module:function"; this finds it when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from edgetune.errors import RecipeError, did_you_mean

Row = TypeVar("Row")


def resolve(reference: str) -> Callable[..., Any]:
    """ "pkg.module:function" -> the function."""
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def pick(table: Mapping[str, Row], name: str, kind: str) -> Row:
    """The row called `name`; RecipeError with the nearest name when there is none. `kind` is the recipe key."""
    if name in table:
        return table[name]
    what = f'unknown {kind} "{name}"{did_you_mean(name, table)}' if name else f"no {kind} given"
    raise RecipeError(what, mend=f"choose one of: {', '.join(table)}")
