"""Write a bundle: one folder that transformers.js, onnxruntime and run.py load as it is."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune import __version__, progress
from edgetune.artifact import file_digest
from edgetune.bundle.card import Card, copy_licences, readme, transformers_js_dtype
from edgetune.bundle.golden import rows
from edgetune.errors import GateError, ModelError, StageError
from edgetune.graph import files
from edgetune.runtime import COMPILERS, available
from edgetune.table import resolve
from edgetune.target import Target
from edgetune.tasks import Task
from edgetune.workspace import tool_versions

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = 2**31 - 1  # bytes of one protobuf file
NAMES = ("encoder_model", "decoder_model_merged")  # as transformers.js calls the two graphs of an encoder-decoder model
SAMPLE = 64  # lengths kept
# Share of the golden rows whose answer may be another one. Right ones change none or one of a hundred (Arm, WebAssembly: see docs/devices.md);
# where 8-bit sums saturate, 15 %.
CHANGED = 0.05
OF_THE_MODEL = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
)
LOCAL_KEYS = ("_name_or_path", "name_or_path")  # paths of the machine that trained


@dataclass(frozen=True)
class Spec:
    """Everything that a bundle is made from.

    `graph` is the chosen .onnx file (an encoder, where a decoder lies beside it) and `suffix` what its name gets ("", "_fp16", "_quantized", "_q4"); `merged` the Hugging Face
    directory whose tokenizer and configuration ship. `lengths` are token counts of real rows, `golden` the items of the golden
    vectors (a mapping with all that the task asks for; a text, where that is all), `tolerance` bounds their outputs relative to
    max(1, the largest) on the architecture and provider that write them, `elsewhere` on others (None: the same). `confidence` is what the task chose for the app, such as temperature, reject_below and chosen_by; `generation` has
    what the task's module of answers reads: stop_ids, max_new_tokens, layers, head_dim and stop (texts); prefix and suffix, and, where they
    are known, system (the message that stands in prefix) and chat (see `text_generation.chat_parts`); or how beams are searched.
    """

    target: Target
    task: Task
    scheme: str
    graph: Path
    suffix: str
    merged: Path
    labels: Sequence[str] | None
    max_length: int
    confidence: Mapping[str, Any] | None
    tolerance: float
    lengths: Sequence[int]
    golden: Sequence[str | Mapping[str, str]]
    metrics: Mapping[str, Any]
    onnxruntime_min: str
    generation: Mapping[str, Any] | None
    card: Card
    elsewhere: float | None = None


def write(spec: Spec, out: Path) -> dict[str, Any]:
    """Fill the empty folder `out` and return its edgetune.json.

    Raises ModelError when the tokenizer is not a fast one, GateError when run.py would not make the tokens of the training,
    StageError when the graph is over 2 GB.
    """
    import onnx
    from transformers import AutoTokenizer

    from edgetune.runtime import copy_programs

    if not (spec.merged / "tokenizer.json").is_file():
        raise ModelError(
            f"{spec.merged} has no tokenizer.json: the model's tokenizer is not a fast one", mend="choose a model that has one"
        )
    tokenizer = AutoTokenizer.from_pretrained(spec.merged, local_files_only=True)
    (out / "onnx").mkdir(parents=True)
    parts = files(spec.graph)
    names = [f"onnx/{name}{spec.suffix}.onnx" for name in (NAMES if len(parts) > 1 else ("model",))]
    model, *decoder = names
    for path, name in zip(parts, names, strict=True):
        graph = onnx.load(path)  # with external data, if any
        if graph.ByteSize() > LARGEST:
            raise StageError(
                f"the {spec.scheme} graph has {graph.ByteSize() / 1e9:.1f} GB, over the 2 GB of one file", mend="use a smaller scheme"
            )
        onnx.save(graph, out / name)
    compiled = _compiled(spec.target, out, model)
    _copy_model_files(spec, model, tokenizer, out)
    copy_programs(spec.task.name, out)
    facts = _facts(spec, model, onnx.load(out / model), tokenizer)
    facts |= {"compiled": compiled, "decoder": decoder[0] if decoder else None}
    if decoder:
        graph = onnx.load(out / decoder[0]).graph
        facts["decoder_inputs"], facts["decoder_outputs"] = (list(map(_tensor, items)) for items in (graph.input, graph.output))
    _write_json(out / "edgetune.json", facts)
    _write_golden(out, tokenizer, spec.golden)
    copy_licences(spec.card, out / "LICENSES")
    (out / "README.md").write_text(readme(spec.card, spec.task, facts, sum((out / name).stat().st_size for name in names)), "utf-8")
    every = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "edgetune.json")
    facts["sha256"] = {path.relative_to(out).as_posix(): file_digest(path) for path in every}
    _write_json(out / "edgetune.json", facts)
    return facts


def _compiled(target: Target, out: Path, model: str) -> dict[str, Any] | None:
    """The graph `model` once more, compiled ahead of time for the target's provider; None where nothing compiles for it, or not here.

    It lies in a folder of its own: the provider's one file set, which no other provider can run. Raises GateError when the provider takes
    less than `runtime.min_share` of the nodes.
    """
    from edgetune.runtime.worker import INSTALL

    runtime = target.runtime
    if runtime.provider not in COMPILERS:
        return None
    if not available(runtime.provider):
        progress.warn(
            f"{target.name}: the graph is not compiled ahead of time, and which of its nodes the accelerator takes is not known: this machine "
            f"has no {runtime.provider}. The device compiles it when it loads it. To compile and check it here: {INSTALL[runtime.provider]}"
        )
        return None
    place = Path("compiled") / "model.onnx"
    (out / place).parent.mkdir()
    facts = resolve(COMPILERS[runtime.provider])(out / model, out / place, min_share=runtime.min_share, options=runtime.options)
    placed = facts["placement"]
    progress.note(f"{target.name}: compiled ahead of time; {runtime.provider} takes {placed['taken']} of {placed['nodes']} nodes")
    return {"model": place.as_posix(), **facts}


def _facts(spec: Spec, model: str, graph: ModelProto, tokenizer: Any) -> dict[str, Any]:
    from edgetune.runtime.verify import opset_of
    from edgetune.runtime.worker import CPU, SCHEMA, architecture

    runtime = spec.target.runtime
    return {
        "schema": SCHEMA,
        "task": spec.task.name,
        "target": spec.target.name,
        "architecture": spec.target.architecture,
        "scheme": spec.scheme,
        "model": model,
        "provider": runtime.provider,
        "provider_options": dict(runtime.options),
        "min_share": runtime.min_share,
        "session": spec.target.session.model_dump(),
        "opset": opset_of(graph),
        "ir": graph.ir_version,
        "onnxruntime_min": spec.onnxruntime_min,
        "labels": list(spec.labels) if spec.labels else None,
        "max_length": spec.max_length,
        "truncation_side": tokenizer.truncation_side,
        "pad_id": tokenizer.pad_token_id or 0,
        "confidence": dict(spec.confidence) if spec.confidence else None,
        "golden": {
            "architecture": architecture(),
            "provider": CPU,
            "tolerance": spec.tolerance,
            "elsewhere": spec.tolerance if spec.elsewhere is None else spec.elsewhere,
            "changed": CHANGED,
        },
        "inputs": [_tensor(item) for item in graph.graph.input],
        "outputs": [_tensor(item) for item in graph.graph.output],
        "lengths": _sample(spec.lengths),
        "metrics": dict(spec.metrics),
        "generation": dict(spec.generation) if spec.generation else None,
        "asks": list(spec.task.asks),
        "made_by": {"edgetune": __version__, **tool_versions()},
        "sha256": {},
    }


def _copy_model_files(spec: Spec, model: str, tokenizer: Any, out: Path) -> None:
    for name in OF_THE_MODEL:
        if (spec.merged / name).is_file():
            shutil.copyfile(spec.merged / name, out / name)
    config = _read_json(out / "config.json")
    if spec.labels:
        config |= {"id2label": dict(enumerate(spec.labels)), "label2id": {label: i for i, label in enumerate(spec.labels)}}
    config["transformers.js_config"] = {"dtype": transformers_js_dtype(model)}
    _write_json(out / "config.json", _without_paths(config))
    words = _read_json(out / "tokenizer.json")
    words |= {"truncation": None, "padding": None}  # run.py decides on lengths
    (out / "tokenizer.json").write_text(json.dumps(words, ensure_ascii=False), "utf-8")
    if (out / "tokenizer_config.json").is_file():
        settings = _without_paths(_read_json(out / "tokenizer_config.json"))
        if isinstance(tokenizer.chat_template, str):
            settings["chat_template"] = tokenizer.chat_template  # for runtimes that do not read chat_template.jinja
        _write_json(out / "tokenizer_config.json", settings)


def _write_golden(out: Path, tokenizer: Any, given: Sequence[str | Mapping[str, str]]) -> None:
    from edgetune.runtime.worker import CPU, Bundle

    bundle = Bundle(out, provider=CPU)
    with (out / "golden.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for row in rows(bundle, tokenizer, [bundle.item(item) for item in given]):
            file.write(json.dumps(row) + "\n")  # ASCII: no copy or editor changes the normal form of a text
    if (out / "golden.jsonl").stat().st_size == 0:
        raise GateError("none of the golden texts could be used", mend="give shorter texts, or a longer max_length")


def _sample(lengths: Sequence[int]) -> list[int]:
    """At most 64 of `lengths`, evenly over their order of size, shuffled: any stretch of them is like the whole."""
    order = sorted(lengths)
    kept = [order[i * len(order) // SAMPLE] for i in range(SAMPLE)] if len(order) > SAMPLE else order
    random.Random(0).shuffle(kept)
    return [int(length) for length in kept]


def _tensor(item: Any) -> dict[str, Any]:
    from onnx import TensorProto

    kind = item.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    return {"name": item.name, "dtype": TensorProto.DataType.Name(kind.elem_type).lower(), "shape": shape}


def _without_paths(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in LOCAL_KEYS}


def _read_json(path: Path) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return tree


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
