"""Base models and tokenizers, loaded the same way for every method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AddedToken, AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from edgetune import source, tasks
from edgetune.errors import ModelError
from edgetune.methods import METHODS, first_token, products
from edgetune.methods.device import Device
from edgetune.recipe import Recipe
from edgetune.table import resolve
from edgetune.tasks import Arrays, Forward

LONGEST = 512


@dataclass(frozen=True)
class Merge:
    """A plain float32 `model`, the `reference` whose logits it must reproduce, what the adapter went `into`, and the `others` that it
    could have gone into, for comparison."""

    model: PreTrainedModel
    reference: torch.nn.Module
    into: str
    others: Mapping[str, Callable[[], PreTrainedModel]] = field(default_factory=dict)


def start(recipe: Recipe) -> source.Source:
    """Where training starts: the recipe's model, that of the run which is continued, or what the stage `start` kept of another run's."""
    other = Path(recipe.continual.run, "merged") if recipe.continual.run else Path(recipe.output, "start") if recipe.start else None
    return source.resolve(str(other or recipe.model), recipe.trust_remote_code)


def load_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The base model's tokenizer, with the task's markers; it must be a fast one, since that is what runs in an app. Raises ModelError."""
    where = start(recipe)
    tokenizer = tokenizer_in(where.folder, where.gguf, recipe.trust_remote_code)
    if markers := tasks.get(recipe.task).markers:
        tokenizer.add_tokens([AddedToken(marker, normalized=False, special=True) for marker in markers], special_tokens=True)
    if recipe.method in METHODS and (changed := METHODS[recipe.method].tokenizer):
        tokenizer = resolve(changed)(tokenizer, recipe)
    return tokenizer


def tokenizer_in(folder: Path, gguf: str | None = None, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in `folder`, which must be a fast one. Raises ModelError."""
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise ModelError(f"{folder} has no fast tokenizer (tokenizer.json), which apps need", mend="choose a model that has one")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(recipe: Recipe, labels: Sequence[str], *, quantized: bool = False, architecture: str = "") -> PreTrainedModel:
    """The base model in float32 with the task's head, with random weights where the recipe asks for them; `quantized`: its linear layers in 4 bits (bitsandbytes NF4); `architecture`: one of
    `tasks.OWN` in the place of the task's."""
    where = start(recipe)
    torch.manual_seed(recipe.seed)  # a new head starts from the recipe's seed
    model = _load(where, recipe, labels, architecture)
    if recipe.adapt.initial == "random":
        model = type(model)(model.config)
    if quantized:
        from edgetune.methods import bnb

        model = bnb.quantize(model)
    return model


def load_merged(folder: Path, task: str) -> PreTrainedModel:
    """A directory written by `save`, in float32, for evaluation."""
    return auto_class(task, AutoConfig.from_pretrained(folder).architectures).from_pretrained(folder, dtype=torch.float32).eval()


def from_folder(recipe: Recipe, folder: Path, **options: Any) -> Any:
    """What `from_pretrained` makes of `folder` for the recipe's task, in float32. Raises ModelError when it cannot be loaded."""
    options |= {"trust_remote_code": recipe.trust_remote_code, "dtype": torch.float32, "use_safetensors": True}
    try:
        config = options.get("config") or AutoConfig.from_pretrained(folder, trust_remote_code=recipe.trust_remote_code)
        return auto_class(recipe.task, config.architectures).from_pretrained(folder, **options)
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        raise ModelError(f"cannot load {recipe.model} for {recipe.task}", details=str(error).splitlines()[:6]) from error


def auto_class(task: str, architectures: Sequence[str] | None = None) -> Any:
    """What loads a model for `task` (see `tasks.loader`)."""
    return tasks.loader(tasks.get(task), architectures)


def base_config(recipe: Recipe) -> PretrainedConfig:
    """The base model's configuration, without its weights."""
    where = start(recipe)
    return AutoConfig.from_pretrained(where.folder, gguf_file=where.gguf, trust_remote_code=recipe.trust_remote_code)


def max_length(recipe: Recipe, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens per row: what the recipe says, else what model and tokenizer take, at most 512. Raises ModelError when it is too much."""
    takes = min(getattr(config, "max_position_embeddings", LONGEST) or LONGEST, tokenizer.model_max_length)
    if recipe.adapt.max_length > takes:
        raise ModelError(f"adapt.max_length = {recipe.adapt.max_length}, but {recipe.model} takes {takes} tokens")
    return recipe.adapt.max_length or min(takes, LONGEST)


def forward(model: torch.nn.Module, fast: Device | None = None) -> Forward:
    """`model` as a function of numpy arrays by name, [b, s] int64 -> float32. `fast`: in that device's training precision."""
    device = next(model.parameters()).device

    def run(given: Arrays) -> Arrays:
        with torch.no_grad(), fast.autocast() if fast else products.quick(), first_token.only(model):
            outputs = model(**{name: torch.from_numpy(array).to(device) for name, array in given.items()})
            return {name: value.float().cpu().numpy() for name, value in outputs.items() if isinstance(value, torch.Tensor)}

    return run


def _load(where: source.Source, recipe: Recipe, labels: Sequence[str], architecture: str = "") -> PreTrainedModel:
    if recipe.continual.run:
        from edgetune.methods import continual

        return continual.grown(from_folder(recipe, where.folder), labels)
    options: dict[str, Any] = {"gguf_file": where.gguf, "trust_remote_code": recipe.trust_remote_code}
    config = AutoConfig.from_pretrained(where.folder, **options)
    task = tasks.get(recipe.task)
    if task.labelled:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: i for i, label in enumerate(labels)}
    for key, value in task.config.items():
        setattr(config, key, value)
    if task.family == "encoder" and getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = getattr(config, "eos_token_id", None)
    if architecture:
        config.architectures = [architecture]
    if where.gguf:
        return _load_gguf(where, recipe, config)
    changed = recipe.method in METHODS and METHODS[recipe.method].tokenizer
    if not task.markers and not changed:
        return from_folder(recipe, where.folder, config=config)
    tokenizer = load_tokenizer(recipe)
    if task.markers:
        config.marker_token_id = tokenizer.convert_tokens_to_ids(list(task.markers))
    model = from_folder(recipe, where.folder, config=config)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    return model


def _load_gguf(where: source.Source, recipe: Recipe, config: Any) -> PreTrainedModel:
    """A .gguf file as a plain float model: what transformers loads calls itself quantised and refuses to be saved."""
    loaded = auto_class(recipe.task).from_pretrained(where.folder, gguf_file=where.gguf, dtype=torch.float32)
    for owner in (config, loaded.config):
        if hasattr(owner, "quantization_config"):
            del owner.quantization_config
    generation = loaded.generation_config
    model = auto_class(recipe.task).from_config(
        loaded.config if config.model_type == loaded.config.model_type else config, dtype=torch.float32
    )
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.generation_config = generation
    return model
