"""What `benchmark` can measure: a bundle, a plain ONNX file, or a model in PyTorch; each becomes an entrant of `measure.in_turns`."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from edgetune import tasks
from edgetune.errors import ModelError, RequestError
from edgetune.runtime import copy_programs, machine
from edgetune.runtime.measure import Entrant
from edgetune.runtime.process import Finished, run, start
from edgetune.runtime.verify import facts_of, graphs
from edgetune.tasks import Task

FEEDS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")  # what run.py can give a graph
TEXT_FILES = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)
CHUNK = 1 << 20


@dataclass(frozen=True)
class Contestant:
    """`path` as the user named it; `folder` what runs: a bundle, or a Hugging Face directory. `facts` as in edgetune.json.

    `model` are the files of the weights, `others` what an app needs besides; the runtime library is in neither.
    """

    kind: Literal["bundle", "onnx", "pytorch"]
    path: Path
    folder: Path
    facts: Mapping[str, Any]
    model: tuple[Path, ...]
    others: tuple[Path, ...]

    @property
    def task(self) -> Task:
        return tasks.of(self.facts["task"], self.facts.get("asks", ("text",)))

    def entrant(self, threads: int | None) -> Entrant:
        return Entrant(self.path, partial(_pytorch, self) if self.kind == "pytorch" else partial(run, self.folder), threads)

    def sizes(self) -> dict[str, int]:
        """`size_bytes` of the weights; `files_bytes` of every file needed; `download_bytes` of those, each compressed (deflate)."""
        every = (*self.model, *self.others)
        return {
            "size_bytes": sum(path.stat().st_size for path in self.model),
            "files_bytes": sum(path.stat().st_size for path in every),
            "download_bytes": sum(map(compressed, every)),
        }


def bundle(path: Path) -> Contestant:
    facts = facts_of(path)
    weights = {file for graph in graphs(facts) for file in (path / graph).parent.glob(f"{Path(graph).name}*")}
    return Contestant("bundle", path, path, facts, tuple(sorted(weights)), _present(path, "edgetune.json"))


def against(path: Path, like: Contestant, scratch: Path) -> Contestant:
    """What `path` is, to be compared with the bundle `like`; a plain ONNX file gets a bundle around it, in the empty folder `scratch`.

    Raises RequestError when it is nothing of the kind, does another task, or needs inputs that a text does not give.
    """
    if not path.exists():
        raise RequestError(f"{path}: no such file or folder", mend="--against takes a bundle, an .onnx file or a Hugging Face directory")
    if path.is_file():
        return _onnx(path, like, scratch)
    if (path / "edgetune.json").is_file():
        found = bundle(path)
    elif (path / "config.json").is_file():
        found = _directory(path, like)
    else:
        inside = next((name for name in ("merged", "checkpoint") if (path / name / "config.json").is_file()), None)
        mend = f"did you mean {path / inside}?" if inside else "--against takes a bundle, an .onnx file or a Hugging Face directory"
        raise RequestError(f"{path} is neither a bundle nor a model (no edgetune.json or config.json in it)", mend=mend)
    if found.task != like.task:
        raise RequestError(f"{path} does {found.task.name}, {like.path} {like.task.name}: they cannot be compared")
    return found


def _onnx(path: Path, like: Contestant, scratch: Path) -> Contestant:
    import onnx
    from google.protobuf.message import DecodeError

    if like.task.family == "seq2seq":
        raise RequestError(
            f"{path} is one graph, and {like.task.name} has two", mend="--against takes another bundle, or a Hugging Face directory"
        )
    try:
        graph = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        raise RequestError(f"{path} is not an ONNX file", details=str(error).splitlines()[:3]) from None
    inputs = {item.name for item in graph.graph.input} - {item.name for item in graph.graph.initializer}
    if "input_ids" not in inputs or (inputs - set(FEEDS) and like.task.family == "encoder"):
        raise RequestError(
            f"{path} cannot be fed: its inputs are {', '.join(sorted(inputs)) or 'none'}",
            mend=f"a graph needs input_ids, and may take {', '.join(FEEDS[1:])}",
        )
    words = next((folder for folder in (path.parent, path.parent.parent) if (folder / "tokenizer.json").is_file()), None)
    if words is None and not _same_vocabulary(graph, like.folder):
        raise RequestError(f"{path} has another vocabulary than {like.path}", mend="put its tokenizer.json beside it")
    name, outside = "onnx/model.onnx", _other_files(graph, path)
    (scratch / "onnx").mkdir(parents=True)
    model = [scratch / name, *(scratch / "onnx" / item for item in outside)]
    for source, copy in zip((path, *(path.parent / item for item in outside)), model, strict=True):
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
    for item in TEXT_FILES:
        origin = words if words and (words / item).is_file() else like.folder
        if (origin / item).is_file():
            shutil.copyfile(origin / item, scratch / item)
    shutil.copyfile(like.folder / "golden.jsonl", scratch / "golden.jsonl")
    copy_programs(like.task.name, scratch)
    facts = {**like.facts, "model": name, "target": path.name, "scheme": "as given", "metrics": {}, "sha256": {}}
    if words is not None:
        _plain_golden(scratch, facts["asks"])
    (scratch / "edgetune.json").write_text(json.dumps(facts), "utf-8")
    return Contestant("onnx", path, scratch, facts, tuple(model), _present(scratch))


def _other_files(graph: Any, path: Path) -> list[str]:
    """Names of the files beside `path` that hold weights."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    names = {ExternalDataInfo(weight).location for weight in graph.graph.initializer if uses_external_data(weight)}
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts or not (path.parent / name).is_file():
            raise RequestError(f"{path} keeps weights in {name}, which is not beside it")
    return sorted(names)


def _plain_golden(scratch: Path, asks: Sequence[str]) -> None:
    """Ids of the golden rows by the graph's own tokenizer: those of the other bundle may be outside of its vocabulary."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(scratch / "tokenizer.json"))
    tokenizer.no_padding()
    rows = [json.loads(line) for line in (scratch / "golden.jsonl").read_text("utf-8").splitlines()]
    rows = [{**{name: row[name] for name in asks}, "input_ids": tokenizer.encode(*(row[name] for name in asks)).ids} for row in rows]
    (scratch / "golden.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")


def _same_vocabulary(graph: Any, folder: Path) -> bool:
    """Whether a weight of the graph has one row for each entry of the tokenizer in `folder`."""
    from tokenizers import Tokenizer

    size = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    return any(size in weight.dims for weight in graph.graph.initializer)


def _directory(path: Path, like: Contestant) -> Contestant:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (ValueError, OSError) as error:
        raise ModelError(f"cannot read {path}/config.json", details=str(error).splitlines()[:3]) from None
    made_for = (config.architectures or ["no task"])[0]
    module, _, kind = like.task.auto_class.rpartition(":")
    ends = kind.removeprefix("AutoModel")
    fits = config.is_encoder_decoder if like.task.family == "seq2seq" else module or made_for.endswith(ends) or made_for in tasks.OWN
    if not fits:
        raise RequestError(f"{path} is a {made_for}, {like.path} does {like.task.name}: they cannot be compared")
    weights = tuple(sorted({*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")}))
    if not weights:
        raise ModelError(f"{path} has no weights (.safetensors)")
    labels = _labels(config.id2label, like.facts["labels"], path) if like.facts["labels"] else None
    facts = {
        **like.facts,
        **{"target": path.name, "scheme": "pytorch fp32", "labels": labels, "metrics": {}, "generation": None},
        **{"pad_id": config.pad_token_id or 0, "architecture": machine.architecture()},
    }
    return Contestant("pytorch", path, path, facts, weights, _present(path))


def _labels(names: Mapping[int, str], expected: Sequence[str], path: Path) -> list[str]:
    """The labels of a model in the order of its logits; a model that does not name them has them as the bundle has."""
    found = [names[i] for i in range(len(names))]
    if found == [f"LABEL_{i}" for i in range(len(expected))]:
        return list(expected)
    if set(found) != set(expected):
        raise RequestError(f"{path} tells other labels apart than the bundle", details=sorted(set(found) ^ set(expected))[:5])
    return found


def _pytorch(one: Contestant, arguments: Sequence[str]) -> Finished:
    """`arguments` of run.py --benchmark for the model in PyTorch, in a fresh process."""
    known = ["--task", one.task.name, "--asks", ",".join(one.task.asks)]
    known += ["--max-length", str(one.facts["max_length"]), "--lengths", json.dumps(one.facts["lengths"])]
    threads = [] if "--threads" in arguments else ["--threads", str(one.facts["session"]["threads"])]
    return start([sys.executable, "-m", "edgetune.runtime.pytorch", str(one.folder), *known, *threads, *arguments])


def _present(folder: Path, *more: str) -> tuple[Path, ...]:
    return tuple(folder / name for name in (*TEXT_FILES, *more) if (folder / name).is_file())


def compressed(path: Path) -> int:
    """Bytes of the file in a zip archive, without its header."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    with path.open("rb") as file:
        return sum(len(packer.compress(piece)) for piece in iter(partial(file.read, CHUNK), b"")) + len(packer.flush())
