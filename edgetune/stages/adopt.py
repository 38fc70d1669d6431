"""adopt: take a transformers or peft checkpoint that was trained elsewhere into a run, in place of adapt and merge."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune import data, progress, tasks
from edgetune.artifact import Dataset
from edgetune.errors import DataError, ModelError
from edgetune.methods.model import forward, from_folder, load_merged, load_tokenizer, max_length, tokenizer_in
from edgetune.recipe import Recipe
from edgetune.source import TOKENIZER_FILES, resolve


def adopt(recipe: Recipe, dataset: Dataset, out: Path) -> dict[str, Any]:
    """Write the checkpoint at `recipe.model` as a plain float32 directory into `out`; returns its metrics on test.

    Its labels are kept in their order. Raises ModelError when it has none, DataError when the data's labels are not among them.
    """
    task = tasks.of(recipe.task, dataset.facts["columns"])
    folder = Path(recipe.model)
    recipe, model = _load(recipe, folder, task)
    own = any((folder / name).is_file() for name in TOKENIZER_FILES)
    own = own and (task.family != "seq2seq" or (folder / "config.json").is_file())  # which says where a decoder starts
    tokenizer = tokenizer_in(folder, trust_remote_code=recipe.trust_remote_code) if own else load_tokenizer(recipe)
    labels = _labels(model, dataset) if task.labelled else []
    longest = max_length(recipe, model.config, tokenizer)
    model.save_pretrained(out, safe_serialization=True)
    tokenizer.save_pretrained(out)
    examples = task.module.encode(data.rows(dataset.path, "test"), tokenizer, max_length=longest, labels=labels).examples
    scores = task.module.score(forward(load_merged(out, recipe.task)), examples, tokenizer.pad_token_id)
    metrics = task.module.metrics(scores, labels)
    progress.note(f"checkpoint {folder}: test {task.metric} {metrics[task.metric]:.4f}")
    return {
        **{"into": "its own weights", "base_model": recipe.model, "test": metrics, "labels": labels, "max_length": longest},
        "inputs": list(tasks.inputs(task.module.collate(examples[:1], tokenizer.pad_token_id))),
        "asks": list(task.asks),
    }


def _load(recipe: Recipe, folder: Path, task: tasks.Task) -> tuple[Recipe, Any]:
    """The float32 model, an adapter folded into its base. With an adapter, `recipe.model` becomes the base."""
    adapter = folder / "adapter_config.json"
    if not adapter.is_file():
        where = resolve(recipe.model, recipe.trust_remote_code)
        model, found = from_folder(recipe, where.folder, output_loading_info=True)
        if found["missing_keys"]:
            raise ModelError(
                f"{folder} was not trained for {task.name}: it lacks {', '.join(sorted(found['missing_keys'])[:3])}",
                mend=f"edgetune adapt --model {folder} trains it",
            )
        for key, value in task.config.items():
            if key == "num_labels" and model.config.num_labels != value:
                raise ModelError(f"{folder} was not trained for {task.name}: it says {model.config.num_labels} numbers, not {value}")
            setattr(model.config, key, value)
        return recipe, model
    from peft import PeftModel

    from edgetune.methods.model import load_base

    settings: Mapping[str, Any] = json.loads(adapter.read_text("utf-8"))
    base = settings.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{adapter} does not name its base model")
    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelError(f"{folder} has no adapter_model.safetensors", mend="save the adapter with safe_serialization=True")
    recipe = recipe.model_copy(update={"model": base})
    labels = _adapter_labels(folder)
    model = PeftModel.from_pretrained(load_base(recipe, labels), folder)
    return recipe, model.merge_and_unload(safe_merge=True)


def _adapter_labels(folder: Path) -> list[str]:
    """Labels of a peft classifier: a config.json beside the adapter, else as many numbered ones as its head has rows."""
    config = folder / "config.json"
    if config.is_file():
        names = json.loads(config.read_text("utf-8")).get("id2label", {})
        return [names[key] for key in sorted(names, key=int)]
    from safetensors import safe_open

    with safe_open(folder / "adapter_model.safetensors", "pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - safe_open is no mapping
            if name.endswith(("classifier.weight", "score.weight", "classifier.out_proj.weight")):
                return [f"LABEL_{i}" for i in range(tensors.get_slice(name).get_shape()[0])]
    return []


def _labels(model: Any, dataset: Dataset) -> list[str]:
    names = [model.config.id2label[i] for i in range(model.config.num_labels)]
    unknown = sorted(set(dataset.facts["labels"]) - set(names))
    if not unknown:
        return names
    if all(name.startswith("LABEL_") for name in names) and len(names) == len(dataset.facts["labels"]):
        progress.warn("the checkpoint does not name its labels: the data's labels are taken in alphabetical order")
        named: list[str] = sorted(dataset.facts["labels"])
        model.config.id2label = dict(enumerate(named))
        model.config.label2id = {label: i for i, label in enumerate(named)}
        return named
    raise DataError(
        f"{len(unknown)} labels of the data are unknown to the checkpoint: {', '.join(unknown[:5])}",
        details=[f"the checkpoint knows: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"],
        mend="give the data that it was trained on",
    )
