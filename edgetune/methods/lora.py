"""Low-rank adapters (LoRA, arXiv:2106.09685; rsLoRA, arXiv:2312.03732) on a float base, or on one held in 4 bits (`qlora`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel

from edgetune import tasks
from edgetune.errors import RecipeError, did_you_mean
from edgetune.methods import bnb, heads
from edgetune.methods.model import Merge, load_base
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
    encoder = tasks.get(recipe.task).family == "encoder"
    whole = _heads(base) if encoder else []
    config = LoraConfig(
        task_type=TYPES.get(tasks.get(recipe.task).auto_class),
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha or recipe.lora.rank,
        lora_dropout=recipe.lora.dropout,
        use_rslora=recipe.lora.rslora,
        target_modules=_targets(recipe, base),
        exclude_modules=rf"(.*\.)?({'|'.join(whole)})(\..*)?" if whole else None,
        modules_to_save=whole or None,
        trainable_token_indices=_markers(base),
    )
    return get_peft_model(base, config)


def save(model: PeftModel, folder: Path) -> None:
    """Adapter and trained head as safetensors, in peft's own layout."""
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


def _markers(base: PreTrainedModel) -> dict[str, list[int]] | None:
    """The embedding's name and the new tokens in it, which start at random and say nothing unless they learn."""
    table = base.get_input_embeddings()
    ids = getattr(base.config, "marker_token_id", None)
    return {next(name for name, module in base.named_modules() if module is table): list(ids)} if ids else None


def _quantized(recipe: Recipe) -> bool:
    return recipe.method == "qlora"


def _adapted(base: PreTrainedModel, folder: Path) -> PeftModel:
    return PeftModel.from_pretrained(base, str(folder)).eval()


def _heads(model: torch.nn.Module) -> list[str]:
    """The parts of a classifier that are trained whole, by the last part of their names."""
    return sorted(heads(name for name, _ in model.named_modules()))


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
