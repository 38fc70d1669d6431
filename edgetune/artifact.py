"""What a stage leaves behind: a folder, its digest, and the digests that it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """A folder that a stage wrote. `facts` is what it found out (metrics, counts), as JSON values."""

    path: Path
    digest: str
    facts: Mapping[str, Any] = field(default_factory=dict)


class Dataset(Artifact):
    """`train.jsonl`, `validation.jsonl`, `test.jsonl`: checked rows in the task's own columns."""


class Adapted(Artifact):
    """`adapter/` (peft) or `checkpoint/` (all weights): what training changed, as safetensors."""


class Merged(Artifact):
    """A plain Hugging Face directory with the adapter folded in."""


class Graph(Artifact):
    """`model.onnx`: the float graph that every candidate starts from."""


class Bundle(Artifact):
    """What ships to one target."""


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """sha256 over the relative path and the sha256 of every file in `folder`."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(f"{path.relative_to(folder).as_posix()}\0{file_digest(path)}\n".encode())
    return total.hexdigest()


def key_digest(key: Mapping[str, Any], parents: Iterable[Artifact] = ()) -> str:
    """sha256 of what a stage depends on: its recipe keys and its parents' digests."""
    text = json.dumps({"key": key, "parents": [p.digest for p in parents]}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
