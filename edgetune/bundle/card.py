"""The model card: README.md of a bundle, as Hugging Face reads it, and the licences beside it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune.tasks import Task

LICENCE_FILES = re.compile(r"(licen[cs]e|notice|copying)", re.IGNORECASE)
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Card:
    """Where a bundle comes from. `licences` is a folder that may hold the base model's licence files; `rows` counts rows by split."""

    base: str
    base_licence: str = "unknown"
    licences: Path | None = None
    data: str = "unknown"
    data_licence: str = "unknown"
    method: str = "unknown"
    rows: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def readme(card: Card, task: Task, facts: Mapping[str, Any], size_bytes: int) -> str:
    """README.md for the bundle that `facts` (edgetune.json) describes."""
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, StrictUndefined

    front = ModelCardData(
        license=card.base_licence.lower() if card.base_licence != "unknown" else None,
        base_model=card.base if HUB_ID.fullmatch(card.base) else None,
        pipeline_tag=task.name,
        library_name="transformers.js",
        tags=["onnx", "onnxruntime", "transformers.js", "edgetune"],
    )
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    page.filters["number"] = _number
    template = page.from_string((Path(__file__).parent / "templates" / "README.md.jinja").read_text("utf-8"))
    return template.render(
        front=front.to_yaml(), card=card, task=task, facts=facts, size_mb=size_bytes / 1e6, dtype=transformers_js_dtype(facts["model"])
    )


def transformers_js_dtype(model: str) -> str:
    """The name under which transformers.js finds the file `model`: its suffix, but "q8" for _quantized and "fp32" for none."""
    suffix = Path(model).stem.removeprefix("model").removeprefix("_")
    return {"": "fp32", "quantized": "q8"}.get(suffix, suffix)


def copy_licences(card: Card, folder: Path) -> None:
    """Fill `folder` with the licence files of the base model as found, or with a note that there were none."""
    folder.mkdir(parents=True)
    found = sorted(p for p in card.licences.iterdir() if p.is_file() and LICENCE_FILES.match(p.name)) if card.licences else []
    for path in found:
        shutil.copyfile(path, folder / path.name)
    if not found:
        (folder / "NOT_FOUND.txt").write_text(
            f"No licence file was found beside the base model {card.base}.\n"
            f"Licence as stated: {card.base_licence}. Read the model's page before you ship this bundle.\n",
            "utf-8",
        )


def _number(value: Any) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
