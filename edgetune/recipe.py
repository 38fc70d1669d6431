"""What the user asked for: one frozen model, read from TOML, `--set key=value` and flags.

Every key is declared once, here or in `sections`; the command line, the documentation and `edgetune init` read it from here.
Unknown keys are refused, and all problems are reported together, each with its dotted path.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from edgetune.errors import RecipeError, did_you_mean
from edgetune.sections import (
    AdaptKeys,
    AugmentKeys,
    CompressKeys,
    ContinualKeys,
    DataKeys,
    DistillationKeys,
    DomainKeys,
    ExportKeys,
    LoraKeys,
    MetaKeys,
    PatternKeys,
    PromptKeys,
    SearchKeys,
    Section,
)

LISTED = (
    "data.other_tests",
    "export.targets",
    "export.schemes",
    "distillation.teacher",
    "augment.kinds",
    "compress.teacher",
)  # may be one text with commas
LABEL_NAMES_OUT_OF_SCOPE = ("out_of_scope", "out-of-scope", "oos")


class Recipe(Section):
    """One request, complete: what `recipe.toml` in a run directory holds."""

    model: str = Field("", description="hub id, directory, or .gguf file")
    start: str = Field("", description="finished run whose model training starts from, with a new head, in the place of model")
    task: str = Field("", description="see `edgetune tasks`")
    method: str = Field("", description="see `edgetune methods`; auto: one that fits data, model and machine")
    seed: int = Field(0, ge=0, description="seed of every random choice")
    output: str = Field("", description="run directory")
    trust_remote_code: bool = Field(False, description="allow code that comes with the model")
    data: DataKeys = DataKeys()
    adapt: AdaptKeys = AdaptKeys()
    lora: LoraKeys = LoraKeys()
    prompt: PromptKeys = PromptKeys()
    pattern: PatternKeys = PatternKeys()
    distillation: DistillationKeys = DistillationKeys()
    search: SearchKeys = SearchKeys()
    meta: MetaKeys = MetaKeys()
    continual: ContinualKeys = ContinualKeys()
    domain: DomainKeys = DomainKeys()
    augment: AugmentKeys = AugmentKeys()
    compress: CompressKeys = CompressKeys()
    export: ExportKeys = ExportKeys()


# Keys that decide what the trained weights are: a run directory is for one set of these.
TRAINING_KEYS = tuple(name for name in Recipe.model_fields if name not in ("output", "compress", "export"))
ADDED = (  # keys that are younger than some runs
    *("tasks", "sampling_temperature", "generator", "thesaurus", "initial", "from_scratch"),
    *("layers", "layer_decay", "gradual_unfreezing", "plus_ratio"),
)
AUTO = "auto"  # the method of a recipe for which none has been chosen yet
ELSEWHERE = "none"  # the method of a run whose model was trained elsewhere
CARD_KEYS = ("data.licence", "data.other_tests", "adapt.generated")  # but these are only told, or say how much is measured


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe file, put `overrides` (dotted key -> value) over it, and validate.

    Raises RecipeError with every problem found. Values of `overrides` may be strings as typed on a command line.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        tree = _read(path)
    known = keys()
    if unknown := [f'unknown key "{key}"{did_you_mean(key, known)}' for key in overrides or {} if key not in known]:
        raise RecipeError(unknown[0], details=unknown[1:], mend="edgetune init lists every key")
    for key, value in (overrides or {}).items():
        _put(tree, key, value)
    return validate(tree, where=str(path) if path else "the command line")


def validate(tree: Mapping[str, Any], where: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors()]
        raise RecipeError(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''} in the recipe ({where})",
            details=problems,
            mend="edgetune init writes a recipe with every key explained",
        ) from None


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """`["lora.rank=32", ...]` -> `{"lora.rank": "32"}`; pydantic turns the text into the key's type."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise RecipeError(f'--set {setting}: expected key=value, such as "--set lora.rank=32"')
        parsed[key.strip()] = value
    return parsed


def keys(model: type[BaseModel] = Recipe, prefix: str = "") -> dict[str, str]:
    """Every dotted key and its description, in the order of declaration."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= keys(kind, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description or ""
    return found


def changed(section: Section, exclude: set[str] | None = None) -> dict[str, Any]:
    """The section, without ADDED keys that are at their defaults: what came later leaves the keys of older runs as they were."""
    plain = type(section)()
    found = section.model_dump(mode="json", exclude=exclude)
    return {name: value for name, value in found.items() if name not in ADDED or value != getattr(plain, name)}


def dump(recipe: Recipe) -> str:
    """The recipe as TOML, every key written out with its description; keys without a value stay as comments."""
    lines: list[str] = []
    tables: list[tuple[str, Section]] = []
    for name, field in Recipe.model_fields.items():
        value = getattr(recipe, name)
        if isinstance(value, Section):
            tables.append((name, value))
        else:
            lines.append(_line(name, value, field.description))
    for name, section in tables:
        lines += ["", f"[{name}]"]
        lines += [_line(key, getattr(section, key), field.description) for key, field in type(section).model_fields.items()]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any, description: str | None) -> str:
    text = f"# {key} =" if value is None else f"{key} = {_toml(value)}"
    return f"{text:<34} # {description}" if description else text


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}", mend="edgetune init writes one") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from None


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            return  # not a table: `validate` says so
    if isinstance(value, str) and dotted in LISTED:
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif isinstance(value, str) and dotted == "export.stop":
        value = [value]
    tree[last] = value


def _problem(item: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown key{did_you_mean(path, keys())}"
    return f"{path}: {item['msg'][0].lower()}{item['msg'][1:]} (got {item['input']!r})"
