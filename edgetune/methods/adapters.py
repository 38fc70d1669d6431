"""Adapters beside a frozen base, by peft, that can be folded into its weights: what is trained, saved, restored and merged.

Low-rank ones (LoRA, arXiv:2106.09685; rsLoRA, arXiv:2312.03732; DoRA, arXiv:2402.09353) on a float base, or on one held in 4 bits (`qlora`);
rotations (OFT), factors (IA3), and prompts, which are rows of the embeddings (see `prompts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import IA3Config, LoraConfig, OFTConfig, PeftConfig, PeftModel, TaskType, get_peft_model
from peft.utils.constants import DUMMY_TARGET_MODULES, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
from transformers import PreTrainedModel

from edgetune import methods, tasks
from edgetune.errors import RecipeError, did_you_mean
from edgetune.methods import bnb, heads, prompts
from edgetune.methods.model import Merge, base_config, load_base, load_tokenizer
from edgetune.recipe import Recipe

ALL_LINEAR = "all-linear"
TYPES = {
    "AutoModelForSequenceClassification": TaskType.SEQ_CLS,
    "AutoModelForCausalLM": TaskType.CAUSAL_LM,
    "AutoModelForSeq2SeqLM": TaskType.SEQ_2_SEQ_LM,
}  # others: peft's plain wrapper


def attach(recipe: Recipe, labels: Sequence[str]) -> PeftModel:
    """The base model, frozen, with fresh adapters; a classifier's head and the embeddings of a task's markers are trained whole.

    Raises RecipeError when lora.modules names no module of the model.
    """
    base = load_base(recipe, labels, quantized=_quantized(recipe))
    whole = _heads(base) if tasks.get(recipe.task).family == "encoder" else []
    common = {"task_type": TYPES.get(tasks.get(recipe.task).auto_class), "modules_to_save": whole or None}
    model = get_peft_model(base, CONFIGS.get(recipe.method, _low_rank)(recipe, base, common))
    if recipe.method == "p-tuning":
        prompts.reparametrize(model, recipe.seed)
    return model


def _low_rank(recipe: Recipe, base: PreTrainedModel, common: Mapping[str, Any]) -> LoraConfig:
    rank = methods.rank(recipe)
    return LoraConfig(
        **common,
        r=rank,
        lora_alpha=recipe.lora.alpha or rank,
        lora_dropout=recipe.lora.dropout,
        use_rslora=recipe.lora.rslora,
        use_dora=recipe.method == "dora",
        target_modules=_targets(recipe, base),
        exclude_modules=_excluded(common),
        trainable_token_indices=_rows(base, getattr(base.config, "marker_token_id", None)),
    )


def _orthogonal(recipe: Recipe, base: PreTrainedModel, common: Mapping[str, Any]) -> OFTConfig:
    return OFTConfig(
        **common, oft_block_size=methods.rank(recipe), target_modules=_targets(recipe, base), exclude_modules=_excluded(common)
    )


def _factors(recipe: Recipe, base: PreTrainedModel, common: Mapping[str, Any]) -> IA3Config:
    return IA3Config(**common, exclude_modules=_excluded(common))


def _prompt(recipe: Recipe, base: PreTrainedModel, common: Mapping[str, Any]) -> LoraConfig:
    """No adapter at all, but rows of the embeddings."""
    tokenizer = load_tokenizer(recipe)
    ids: list[Any] = [tokenizer.convert_tokens_to_ids(name) for name in prompts.names(recipe)]
    return LoraConfig(**common, target_modules=DUMMY_TARGET_MODULES, trainable_token_indices=_rows(base, ids))


CONFIGS: dict[str, Callable[[Recipe, PreTrainedModel, Mapping[str, Any]], PeftConfig]] = {
    "oft": _orthogonal,
    "ia3": _factors,
    "prompt-tuning": _prompt,
    "p-tuning": _prompt,
}


def check_ia3(recipe: Recipe) -> None:
    """Raises RecipeError for an architecture of which peft does not know the layers to scale."""
    kind = base_config(recipe).model_type
    if kind not in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
        raise RecipeError(
            f"method ia3 does not fit {recipe.model}: which layers of a {kind} model it scales is not known",
            details=[f"architectures that it fits: {', '.join(TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING)}"],
            mend="--method lora",
        )


def save(model: PeftModel, folder: Path) -> None:
    """Adapter and trained head as safetensors, in peft's own layout."""
    prompts.settle(model)
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)


def restore(recipe: Recipe, folder: Path, labels: Sequence[str]) -> PeftModel:
    return _adapted(load_base(recipe, labels, quantized=_quantized(recipe)), folder)


def merge(recipe: Recipe, folder: Path, labels: Sequence[str]) -> Merge:
    """Fold the adapter into its base in float32; the reference is the adapter on the base that it was trained on.

    A 4-bit base is dequantised first: the adapter learned to correct those very values, not the original ones.
    """
    base = load_base(recipe, labels, quantized=_quantized(recipe))
    if not _quantized(recipe):
        return Merge(_folded(base, folder), restore(recipe, folder, labels).eval(), "the float base")
    bnb.dequantize(base)
    return Merge(
        _folded(base, folder),
        restore(recipe, folder, labels).eval(),
        "the dequantised 4-bit base",
        {"the original float base": lambda: _folded(load_base(recipe, labels), folder)},
    )


def _folded(base: PreTrainedModel, folder: Path) -> PreTrainedModel:
    return _adapted(base, folder).merge_and_unload(safe_merge=True).eval()


def _rows(base: PreTrainedModel, ids: Sequence[int] | None) -> dict[str, list[int]] | None:
    """The embedding's name and the new tokens in it, which start at random and say nothing unless they learn."""
    table = base.get_input_embeddings()
    return {next(name for name, module in base.named_modules() if module is table): list(ids)} if ids else None


def _quantized(recipe: Recipe) -> bool:
    return recipe.method == "qlora"


def _adapted(base: PreTrainedModel, folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(base, str(folder)).eval()


def _heads(model: torch.nn.Module) -> list[str]:
    """The layers of a classifier's head, which are trained whole."""
    found = heads(name for name, _ in model.named_modules())
    return [
        name
        for name, module in model.named_modules()
        if found.intersection(name.split(".")) and next(module.parameters(recurse=False), None) is not None
    ]


def _excluded(common: Mapping[str, Any]) -> str | None:
    """The head's layers as peft takes them."""
    whole = common["modules_to_save"]
    return "|".join(rf"(.*\.)?{re.escape(name)}" for name in whole) if whole else None


def _targets(recipe: Recipe, model: torch.nn.Module) -> str | list[str]:
    asked = recipe.lora.modules
    if asked == ALL_LINEAR:
        return ALL_LINEAR
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    linear = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    unknown = [f'lora.modules: the model has no linear layer "{name}"{did_you_mean(name, linear)}' for name in wanted if name not in linear]
    if unknown or not wanted:
        raise RecipeError(
            "lora.modules does not fit the model",
            details=unknown or ["lora.modules is empty"],
            mend=f"choose among {', '.join(sorted(linear))}, or {ALL_LINEAR}",
        )
    return wanted
