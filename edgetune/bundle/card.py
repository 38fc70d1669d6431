"""The model card: README.md of a bundle, as Hugging Face reads it, and the licences beside it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetune.tasks import Task

LICENCE_FILES = re.compile(r"(licen[cs]e|notice|copying)", re.IGNORECASE)
PIPELINES = (  # what transformers.js runs, as Hugging Face calls it
    "sentence-similarity",
    *("text-classification", "token-classification", "question-answering", "fill-mask", "feature-extraction"),
    *("text-generation", "summarization", "translation", "text2text-generation"),
)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Card:
    """Where a bundle comes from.

    `base_folder` is the base model's directory, in which its licence files and its own card are looked for. `rows` counts rows by
    split. Of local paths only the last part is ever written.
    """

    base_model: str
    base_folder: Path | None = None
    base_licence: str = ""  # none: as the base model's card says
    data: str = "unknown"
    data_licence: str = "unknown"
    method: str = "unknown"
    rows: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def base(self) -> str:
        return Path(self.base_model).name if Path(self.base_model).is_absolute() else self.base_model

    @property
    def data_name(self) -> str:
        return Path(self.data).name if Path(self.data).is_absolute() else self.data

    @property
    def licence(self) -> str:
        """Of the base model, as a Hugging Face identifier; "unknown" when nothing tells."""
        return self.base_licence or _stated(self.base_folder) or "unknown"


def readme(card: Card, task: Task, facts: Mapping[str, Any], size_bytes: int) -> str:
    """README.md for the bundle that `facts` (edgetune.json) describes."""
    from huggingface_hub import ModelCardData
    from jinja2 import Environment, StrictUndefined

    pipeline = task.tag if task.tag in PIPELINES else None
    web = pipeline if not facts["decoder"] else None  # a pair of graphs of edgetune's own, which transformers.js does not load
    front = ModelCardData(
        license=card.licence if card.licence != "unknown" else None,
        base_model=card.base if HUB_ID.fullmatch(card.base) else None,
        pipeline_tag=pipeline,
        library_name="onnxruntime" if facts["decoder"] else "transformers.js",
        tags=["onnx", "onnxruntime", *([] if facts["decoder"] else ["transformers.js"]), "edgetune"],
    )
    page = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    page.filters["number"] = _number
    template = page.from_string((Path(__file__).parent / "templates" / "README.md.jinja").read_text("utf-8"))
    item = json.dumps({name: f"some {name.replace('_', ' ')}" for name in task.asks} if len(task.asks) > 1 else "some text")
    return template.render(
        front=front.to_yaml(),
        pipeline=web,
        card=card,
        task=task,
        facts=facts,
        size_mb=size_bytes / 1e6,
        dtype=transformers_js_dtype(facts["model"]),
        typed=f"'{item}'" if len(task.asks) > 1 else item,
        written=item,
    )


def transformers_js_dtype(model: str) -> str:
    """The name under which transformers.js finds the file `model`: its suffix, but "q8" for _quantized and "fp32" for none."""
    suffix = Path(model).stem.rpartition("model")[2].removeprefix("merged").strip("_")
    return {"": "fp32", "quantized": "q8"}.get(suffix, suffix)


def copy_licences(card: Card, folder: Path) -> None:
    """Fill `folder` with the licence files of the base model as found, or with a note that there were none."""
    folder.mkdir(parents=True)
    found = sorted(p for p in card.base_folder.iterdir() if p.is_file() and LICENCE_FILES.match(p.name)) if card.base_folder else []
    for path in found:
        shutil.copyfile(path, folder / path.name)
    if not found:
        (folder / "NOT_FOUND.txt").write_text(
            f"No licence file was found beside the base model {card.base}.\n"
            f"Licence as stated: {card.licence}. Read the model's page before you ship this bundle.\n",
            "utf-8",
        )


def _stated(folder: Path | None) -> str:
    """The licence in the front matter of the base model's own card."""
    from huggingface_hub import ModelCard

    if folder is None or not (folder / "README.md").is_file():
        return ""
    card = ModelCard((folder / "README.md").read_text("utf-8", errors="replace"), ignore_metadata_errors=True)
    stated = card.data.get("license")
    return ", ".join(stated) if isinstance(stated, list) else stated or ""


def _number(value: Any) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
