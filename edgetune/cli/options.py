"""Flags made from the recipe's keys, and the flags that every command takes.

A key of the recipe is declared once, in `edgetune.recipe`: its flag has the key's name, its type and its description.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer

from edgetune import recipe as recipes
from edgetune.recipe import Recipe

Function = Callable[..., Any]

# Keys whose flag has another name than the key. Sections not in BARE put their own name before the key's.
NAMED = {
    "start": "--from",
    "data.path": "--data",
    "data.other_tests": "--other-test",
    "data.source": "--source-column",
    "data.target": "--target-column",
    "search.trials": "--search",
    "pattern.text": "--pattern",
    "distillation.teacher": "--teacher",
    "continual.run": "--continue",
    "augment.kinds": "--augment",
    "export.targets": "--target",
    "export.schemes": "--scheme",
    "export.max_size_mb": "--max-size",
    "export.max_memory_mb": "--max-memory",
    "export.max_latency_ms": "--max-latency",
    "export.max_perplexity_increase": "--max-perplexity-rise",
}
BARE = ("data", "adapt", "continual", "export")
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}
PANELS = {  # every section of the recipe
    "": "Recipe",
    "data": "Data",
    "adapt": "Training",
    "lora": "LoRA",
    "prompt": "Prompts",
    "pattern": "Pattern",
    "search": "Search",
    "distillation": "Distillation",
    "meta": "Episodes",
    "continual": "Learning more",
    "domain": "Another domain",
    "augment": "Augmentation",
    "compress": "Smaller model",
    "export": "Export",
}
TRAINING = tuple(section for section in PANELS if section not in ("compress", "export"))

RecipeFile = Annotated[Path | None, typer.Argument(metavar="[RECIPE]", help="recipe.toml; flags and --set go over it", show_default=False)]


def flag(key: str) -> str:
    """'adapt.batch_size' -> '--batch-size', 'lora.rank' -> '--lora-rank'."""
    section, _, name = key.rpartition(".")
    return NAMED.get(key) or "--" + (name if section in BARE else key).replace(".", "-").replace("_", "-")


def takes(*sections: str, only: Iterable[str] = ()) -> Callable[[Function], Function]:
    """Give a command the flags of the recipe's `sections` ("" for the top keys), and of the keys in `only`, and `--set`.

    They reach the function as `overrides`: dotted key -> value, only what was given; `--set` goes over the flags.
    """

    def decorate(function: Function) -> Function:
        known = recipes.keys()
        wanted = [key for key in known if key.rpartition(".")[0] in sections or key in set(only)]
        names = {_parameter(key): key for key in wanted}

        @functools.wraps(function)
        def run(**given: Any) -> Any:
            flags = {key: given.pop(name) for name, key in names.items()}
            settings = recipes.parse_settings(given.pop("settings") or ())
            overrides = {
                key: (",".join(dict.fromkeys(value)) if key in recipes.LISTED else value) if isinstance(value, list) else value
                for key, value in flags.items()
                if value not in (None, [])
            }
            return function(**given, overrides={**overrides, **settings})

        made = [_flag_parameter(name, key) for name, key in names.items()]
        return _with_parameters(run, function, [*made, _SET], without="overrides")

    return decorate


def everywhere(function: Function) -> Function:
    """Give a command --json, --quiet, -v and --debug, and let no exception out of it but typer.Exit."""
    from edgetune.cli import errors
    from edgetune.cli.output import out

    @functools.wraps(function)
    def run(**given: Any) -> None:
        out.configure(**{name: given.pop(name) for name in EVERYWHERE})
        try:
            function(**given)
        except typer.Exit:
            raise
        except BaseException as error:  # noqa: BLE001  the one place where exceptions become text
            raise typer.Exit(errors.report(error)) from None

    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind) for name, kind in EVERYWHERE.items()
    ]
    return _with_parameters(run, function, parameters)


def load_recipe(path: Path | None, overrides: dict[str, Any]) -> Recipe:
    """The recipe that was asked for; lets the hub be asked when it names something that is not here."""
    from edgetune.cli import environment

    recipe = recipes.load(path, overrides)
    environment.allow_network(recipe)
    return recipe


def names_of(kind: Literal["task", "method", "target"]) -> list[str]:
    """What the shell completes."""
    if kind == "target":
        from edgetune.target import names

        return list(names())
    if kind == "task":
        from edgetune.tasks import TASKS

        return list(TASKS)
    from edgetune.methods import METHODS

    return [*METHODS, recipes.AUTO]


def complete(*words: str) -> Callable[[str], list[str]]:
    def matching(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return matching


def complete_names(kind: Literal["task", "method", "target"]) -> Callable[[str], list[str]]:
    def matching(incomplete: str) -> list[str]:
        return complete(*names_of(kind))(incomplete)

    return matching


def kind_of(key: str) -> Any:
    """The type of a recipe key, without `None`."""
    model: Any = Recipe
    *parents, last = key.split(".")
    for parent in parents:
        model = model.model_fields[parent].annotation
    kind = model.model_fields[last].annotation
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    return kind


EVERYWHERE: dict[str, Any] = {
    "json": Annotated[
        bool, typer.Option("--json", metavar="", help="one JSON document on stdout", rich_help_panel="Everywhere", show_default=False)
    ],
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="only the bare answer", rich_help_panel="Everywhere", show_default=False)
    ],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", metavar="", help="let the libraries talk", rich_help_panel="Everywhere", show_default=False)
    ],
    "debug": Annotated[bool, typer.Option("--debug", metavar="", help="show tracebacks", rich_help_panel="Everywhere", show_default=False)],
}
_SET = inspect.Parameter(
    "settings",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="any recipe key, such as lora.rank=32; repeatable",
            rich_help_panel="Recipe",
            show_default=False,
        ),
    ],
)
_COMPLETED: dict[str, Literal["task", "method", "target"]] = {"task": "task", "method": "method", "export.targets": "target"}


def _parameter(key: str) -> str:
    return "key_" + key.replace(".", "_")


def _flag_parameter(name: str, key: str) -> inspect.Parameter:
    kind = kind_of(key)
    several = get_origin(kind) is tuple
    option: dict[str, Any] = {
        "help": recipes.keys()[key] + ("; repeatable" if several else ""),
        "rich_help_panel": PANELS.get(key.rpartition(".")[0], "More"),
        "show_default": False,
    }
    if kind is bool:
        annotation: Any = bool | None
        names = f"{flag(key)}/--no-{flag(key)[2:]}" if default(key) else flag(key)
        option["metavar"] = ""
    else:
        annotation = (list[str] if several else str) | None  # the recipe checks the value, as it does for a file
        names = flag(key)
        option["metavar"] = METAVARS.get(kind, "TEXT").replace("TEXT", "NAME" if several else "TEXT")
        if get_origin(kind) is Literal:
            option["metavar"] = "|".join(get_args(kind))
            option["autocompletion"] = complete(*get_args(kind))
        elif key in _COMPLETED:
            option["autocompletion"] = complete_names(_COMPLETED[key])
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[annotation, typer.Option(names, **option)]
    )


def default(key: str) -> Any:
    value: Any = Recipe()
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _with_parameters(run: Function, function: Function, added: list[inspect.Parameter], without: str = "") -> Function:
    """`run` with the signature of `function`, keyword only, plus `added`: what typer reads."""
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(function, eval_str=True).parameters.values()
        if parameter.name != without
    ]
    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    return run
