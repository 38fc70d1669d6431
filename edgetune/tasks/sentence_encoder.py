"""A base model that gives one vector a text: pooled over its tokens and scaled to length 1, inside the model and so inside the graph.

On disk it is the base model's own directory, with the files beside it by which sentence-transformers knows how to pool
(https://sbert.net/docs/package_reference/util.html); AutoModel loads it as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel

from edgetune.errors import ModelError
from edgetune.tasks.headed import mean_state

POOLING = "1_Pooling/config.json"
MODES = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}  # what we call them -> what sentence-transformers does
MODULES = [
    {"idx": idx, "name": str(idx), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for idx, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")))
]


class SentenceEncoder(torch.nn.Module):
    """`model` (of AutoModel) with `pooling`: the mean of the real tokens, or the first token ("cls")."""

    def __init__(self, model: PreTrainedModel, pooling: str = "mean") -> None:
        super().__init__()
        self.model, self.pooling = model, pooling
        self.name_or_path = model.name_or_path  # peft writes it into an adapter

    @classmethod
    def from_pretrained(cls, folder: Path, *, output_loading_info: bool = False, **options: Any) -> Any:
        """From a directory of the base model; pooling as sentence-transformers has it there, else the mean. Raises ModelError."""
        found = AutoModel.from_pretrained(folder, output_loading_info=output_loading_info, **options)
        pooling = _pooling(Path(folder) / POOLING)
        return (cls(found[0], pooling), found[1]) if output_loading_info else cls(found, pooling)

    @classmethod
    def from_config(cls, config: Any, **options: Any) -> SentenceEncoder:
        return cls(AutoModel.from_config(config, **options))

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        self.model.save_pretrained(folder, **options)
        width = {"word_embedding_dimension": self.config.hidden_size}
        for name, content in (
            ("modules.json", MODULES),
            (POOLING, width | {theirs: ours == self.pooling for ours, theirs in MODES.items()}),
        ):
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(content, indent=2), "utf-8")

    @property
    def config(self) -> Any:
        return self.model.config

    def set_attn_implementation(self, name: str) -> None:
        self.model.set_attn_implementation(name)

    def get_input_embeddings(self) -> Any:
        return self.model.get_input_embeddings()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """[b, s] int64 -> `sentence_embedding` [b, hidden] float32 of length 1. The mask may also be one that is ready to add, [b, 1, 1, s]."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state.float()
        pooled = hidden[:, 0] if self.pooling == "cls" else mean_state(hidden, attention_mask)
        return {"sentence_embedding": torch.nn.functional.normalize(pooled, dim=-1)}


def _pooling(path: Path) -> str:
    if not path.is_file():
        return "mean"
    settings = json.loads(path.read_text("utf-8"))
    asked = settings.get("pooling_mode") or [theirs for theirs in settings if theirs.startswith("pooling_mode_") and settings[theirs]]
    known = next((ours for ours, theirs in MODES.items() if asked in (ours, [theirs])), None)
    if known is None:
        raise ModelError(
            f"{path} pools in a way that edgetune does not know", details=[f"it asks for {asked}"], mend="choose another base model"
        )
    return known
