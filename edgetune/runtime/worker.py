#!/usr/bin/env python3
"""Run this model: ask it, check it, time it.

    python run.py "turn on the kitchen light"     an answer for each text (or for each line of standard input)
    python run.py '{"question": ..., "context": ...}'   where edgetune.json asks for more than a text; a tab between them does too
    python run.py --golden                        does it compute here what it computed where it was made?
    python run.py --benchmark                     how fast is it on this machine, in how much memory? (JSON)

Python 3.9 or newer, and:  pip install onnxruntime tokenizers numpy
To embed it, copy the folder and write:  from run import Bundle; Bundle("folder").predict(["some text"])
How the task reads a text and what it makes of the outputs is in answers/.
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports, which a cold start pays for

import argparse  # noqa: E402
import importlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402
from functools import partial  # noqa: E402
from itertools import cycle, islice  # noqa: E402
from pathlib import Path, PurePosixPath, PureWindowsPath  # noqa: E402
from types import ModuleType  # noqa: E402
from typing import Any, Callable, Iterator, Mapping, Sequence  # noqa: E402, UP035

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
try:
    import numpy as np
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
    from tokenizers import Tokenizer
except ImportError as missing:
    if __name__ != "__main__":
        raise
    print(f"error: {missing}; pip install onnxruntime tokenizers numpy", file=sys.stderr)
    sys.exit(2)

SCHEMA = "edgetune.bundle/1"
KEYS = (  # of edgetune.json
    *("task", "target", "architecture", "scheme", "model", "compiled", "provider", "provider_options"),
    *("min_share", "session", "opset", "ir"),
    *("onnxruntime_min", "labels", "max_length", "truncation_side", "pad_id", "confidence", "golden", "inputs", "outputs", "lengths"),
    *("metrics", "generation", "made_by", "sha256", "asks", "decoder"),
)
OLDER = {"asks": ["text"], "decoder": None}  # what edgetune.json lacks when an earlier edgetune wrote it
ANSWERS = Path(__file__).resolve().parent / "answers"
CPU = "CPUExecutionProvider"
ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    kind for kind in vars(ort_state).values() if isinstance(kind, type) and issubclass(kind, Exception)
)
DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
OPTIMIZATION = {"disabled": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED", "all": "ORT_ENABLE_ALL"}
INSTALL = {  # where to get a provider
    "CPUExecutionProvider": "pip install onnxruntime",
    "CUDAExecutionProvider": "pip install onnxruntime-gpu, in place of onnxruntime",
    "TensorrtExecutionProvider": "pip install onnxruntime-gpu tensorrt, in place of onnxruntime",
    "QNNExecutionProvider": "pip install onnxruntime-qnn",
    "CoreMLExecutionProvider": "it comes with onnxruntime on a Mac",
    "DmlExecutionProvider": "pip install onnxruntime-directml, in place of onnxruntime",
    "OpenVINOExecutionProvider": "pip install onnxruntime-openvino, in place of onnxruntime",
    "WebGpuExecutionProvider": "pip install onnxruntime-ep-webgpu; in a browser, onnxruntime-web",
    "XnnpackExecutionProvider": "it comes with onnxruntime-android and onnxruntime-c, or build onnxruntime with --use_xnnpack",
    "NnapiExecutionProvider": "it comes with onnxruntime-android",
}
# Providers that come as a package of their own, which onnxruntime registers ("plug-in execution provider libraries").
PLUGINS = {"QNNExecutionProvider": "onnxruntime_qnn", "WebGpuExecutionProvider": "onnxruntime_ep_webgpu"}
SIMULATED = {"QNNExecutionProvider": "x86_64"}  # where the package has no device, but a simulator: it says what is computed, never how fast
SIMULATED_ROWS = 32  # golden rows there: each takes about a second
WINDOW = 5  # passes whose median tells whether a shape is warm
STEADY = 0.05  # of that median
MOST_WARM_UP = 50  # passes that are not counted
DECODE_STEPS = 32  # tokens generated to time generation


class BundleError(Exception):
    """What is wrong with the folder, this machine or the request, in one line."""


ERRORS: tuple[type[Exception], ...] = (BundleError, *ORT_ERRORS)


class Bundle:
    """A model folder, loaded. `facts` is its edgetune.json, `answers` the module of its task (see `part`).

    An item is what edgetune.json `asks` for: a text, or a mapping with a text for each of them. A row is what the graph reads of it, by
    input: {"input_ids": [...], ...}; a long item may have several. `threads` and `provider` stand in for the ones that the folder
    names. Raises BundleError.
    """

    error = BundleError  # for the modules of answers/

    def __init__(self, folder: str | Path, threads: int | None = None, provider: str | None = None) -> None:
        self.folder = Path(folder)
        self.facts = read_facts(self.folder)
        self.answers = part(self.facts["task"].replace("-", "_"))
        self.threads = threads or self.facts["session"]["threads"]
        self.provider = provider or self.facts["provider"]
        self.simulated = SIMULATED.get(self.provider) == architecture()
        self.compiled = self.facts["compiled"] if self.provider == self.facts["provider"] else None  # the graph for it alone
        self.max_length: int = self.facts["max_length"]
        self.generation: dict[str, Any] | None = self.facts["generation"]
        started = time.perf_counter()
        self.tokenizer = self._open_tokenizer()
        self.session = self._open_session()
        self.decoder: Any = self._open_session(graph="decoder") if self.facts["decoder"] else None  # beside an encoder
        self.load_ms = (time.perf_counter() - started) * 1000
        self.inputs = {item.name: item for item in self.session.get_inputs()}
        self.decoder_inputs = {item.name: item for item in self.decoder.get_inputs()} if self.decoder else {}
        fixed = self.inputs["input_ids"].shape[1] if "input_ids" in self.inputs else None
        self.sequence = fixed if isinstance(fixed, int) else 0  # 0: any number of tokens
        self.placement = self._placement() if self.provider != CPU else None

    def item(self, given: Any) -> dict[str, str]:
        """What is asked, by name. A single text stands for the only field; several may come as one text with tabs between them. A generator
        also takes messages, [{"role": ..., "content": ...}, ...] or {"messages": the same}."""
        asks = self.facts["asks"]
        turns = given.get("messages") if isinstance(given, Mapping) else given
        if isinstance(turns, list) and hasattr(self.answers, "conversation"):
            return self.answers.conversation(self, turns)
        if isinstance(given, str):
            fields = given.split("\t") if len(asks) > 1 else [given]
            given = dict(zip(asks, fields)) if len(fields) == len(asks) else {}  # noqa: B905  (3.9)
        if not isinstance(given, Mapping) or any(not isinstance(given.get(name), str) for name in asks):
            raise BundleError(f"this model asks for {' and '.join(asks)}: give each as a text")
        return {name: given[name] for name in asks}

    def read(self, given: str | Mapping[str, Any]) -> tuple[list[dict[str, list[int]]], Any]:
        """(rows of an item as in training, what `answers.decode` must know of it). A prompt that does not fit is an error; all else is cut."""
        return self.answers.read(self, self.item(given))

    def tokenized(self, item: Mapping[str, str]) -> tuple[dict[str, list[int]], Any]:
        """(row, Encoding of tokenizers) of all that is asked, cut to `max_length`."""
        texts: list[Any] = list(item.values())
        found = self.tokenizer.encode(*texts)
        return self.row(found), found

    def row(self, encoding: Any) -> dict[str, list[int]]:
        """The inputs that the graph takes of an Encoding."""
        found = {"input_ids": encoding.ids, "token_type_ids": encoding.type_ids}
        return {name: ids for name, ids in found.items() if name in self.inputs or name == "input_ids"}

    def outputs(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, np.ndarray]:
        """Some rows in one pass -> float32 arrays [rows, ...] by output; padded on the right, [rows, longest, ...] of tokens.

        A graph of fixed shapes takes them one by one, padded to its own length.
        """
        if not rows or not all(row["input_ids"] for row in rows):
            raise BundleError("nothing to read: the text has no tokens")
        longest = max(len(row["input_ids"]) for row in rows)
        length = self.sequence or longest
        if longest > length:
            raise BundleError(f"a text has {longest} tokens; this model takes {length}")
        wide = {"decoder_input_ids": max(len(row.get("decoder_input_ids", ())) for row in rows)}.get
        feeds = {name: np.zeros((len(rows), wide(name, length)), dtype=np.int64) for name in ("attention_mask", *rows[0])}
        feeds["input_ids"] += self.facts["pad_id"]
        for i, row in enumerate(rows):
            feeds["attention_mask"][i, : len(row["input_ids"])] = 1
            for name, values in row.items():
                feeds[name][i, : len(values)] = values
        if self.decoder is not None:
            return self.answers.outputs(self, feeds)
        if not self.sequence:
            return self.forward(feeds)[0]
        parts = [self.forward({name: value[i : i + 1] for name, value in feeds.items()})[0] for i in range(len(rows))]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {name: value[:, :longest] if of_tokens(name, value) else value for name, value in found.items()}

    def alone(self, rows: Sequence[Mapping[str, Sequence[int]]]) -> dict[str, np.ndarray]:
        """As `outputs`, each row in a pass of its own, so that none can change another; [rows, longest, ...] is filled up with zeros."""
        parts = [self.outputs([row]) for row in rows]
        return {name: stacked([part[name][0] for part in parts]) for name in parts[0]} if parts else self.outputs(rows)

    def forward(
        self, feeds: Mapping[str, np.ndarray], past: Mapping[str, Any] | None = None, decoder: bool = False
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """One pass over `input_ids` [n, s], with `attention_mask` [n, past + s] 1 where a token counts -> float32 outputs, and the new cache.

        `past` is the cache that an earlier pass returned; None is the empty one. Token types that are not given are 0. `decoder`: of that one.
        """
        session, inputs = (self.decoder, self.decoder_inputs) if decoder else (self.session, self.inputs)
        ids, mask = feeds["input_ids"], feeds.get("attention_mask", feeds["input_ids"])
        made = {
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.maximum(mask.cumsum(-1) - 1, 0)[:, -ids.shape[1] :],
            **{**feeds, **(past or {})},
        }
        given = {}
        for name, item in inputs.items():
            value = made[name] if name in made else np.zeros((len(ids), item.shape[1], 0, item.shape[3]))  # an empty past
            of_numpy = isinstance(value, np.ndarray)
            given[name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value, DTYPES[item.type])) if of_numpy else value
        names = [item.name for item in session.get_outputs()]
        found = dict(zip(names, session.run_with_ort_values(names, given)))  # noqa: B905  (3.9)
        cache = {name.replace("present", "past_key_values"): found.pop(name) for name in names if name.startswith("present.")}
        return {name: value.numpy().astype(np.float32, copy=False) for name, value in found.items()}, cache

    def predict(self, items: Sequence[str | Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One answer an item, each in passes of its own. What is in it: see the `decode` or `generate` of the task in answers/."""
        return [self._answer(given) if self.generation is None else self.generate(given) for given in items]

    def _answer(self, given: str | Mapping[str, Any]) -> dict[str, Any]:
        rows, kept = self.read(given)
        return self.answers.decode(self, self.alone(rows), kept)

    def line(self, found: Mapping[str, Any]) -> str:
        """An answer for people, on one line; what counts most comes first, before a tab."""
        return self.answers.line(found)

    def generate(
        self,
        given: Any,
        max_new_tokens: int = 0,
        temperature: float = 0,
        top_p: float = 1,
        seed: int = 0,
        on_text: Any = str,
        stop: Sequence[str] = (),
        num_beams: int = 0,
    ) -> dict[str, Any]:
        """What follows an item: `text`, `tokens` (ids without the stop token), `finished` (False: `max_new_tokens` or length ran out).

        Temperature 0 takes the likeliest token each time; above, tokens are drawn (`top_p`, `seed`). `on_text` is called with
        the text piece by piece. `max_new_tokens` 0: as edgetune.json says. The text ends before the first of its stop texts, and of `stop`.
        `num_beams`: hypotheses that are searched (0: as edgetune.json says), where the task can.
        """
        if self.generation is None:
            raise BundleError("this model does not generate text")
        return self.answers.generate(self, self.item(given), max_new_tokens, temperature, top_p, seed, on_text, stop, num_beams)

    def tokens(self, row: Mapping[str, Sequence[int]], choose: Callable[[np.ndarray], Any] = np.argmax) -> Iterator[int]:
        """The tokens that follow a generator's row, one at a time, until the model's length is full. The reader decides when to stop."""
        return self.answers.tokens(self, row, choose)

    def _open_tokenizer(self) -> Tokenizer:
        path = inside(self.folder, "tokenizer.json")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  (tokenizers raises nothing narrower)
            raise BundleError(f"cannot load {path}: {error}") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if not getattr(self.answers, "WHOLE", False):
            tokenizer.enable_truncation(self.max_length, direction=self.facts["truncation_side"])
        return tokenizer

    def _open_session(self, profile: str = "", graph: str = "model") -> ort.InferenceSession:
        path = inside(self.folder, (self.compiled or self.facts)[graph])
        devices, available = plugged(self.provider), ort.get_available_providers()
        if not devices and self.provider not in available:
            how = INSTALL.get(self.provider, f"known are {', '.join(INSTALL)}")
            raise BundleError(f"provider {self.provider} is not in this onnxruntime (it has: {', '.join(available)}); {how}")
        asked = self.facts["session"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, OPTIMIZATION[asked["optimization"]])
        options.enable_cpu_mem_arena = asked["arena"]
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(asked["spinning"])))
        options.add_session_config_entry("session.disable_prepacking", str(int(not asked["prepacking"])))
        if self.provider != CPU:
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        options.log_severity_level = 3
        options.enable_profiling = bool(profile)
        options.profile_file_prefix = profile
        own = self.facts["provider_options"] if self.provider == self.facts["provider"] else {}
        try:
            if devices:
                options.add_provider_for_devices(devices[:1], own)
                return ort.InferenceSession(str(path), options)
            return ort.InferenceSession(str(path), options, providers=[(self.provider, own)])
        except ORT_ERRORS as error:
            raise BundleError(f"onnxruntime {ort.__version__} cannot load {path}: {error}") from None

    def _placement(self) -> dict[str, Any]:
        """Which nodes the provider takes, in how many pieces, and the types of those that it leaves to the CPU: onnxruntime never says.

        An older onnxruntime cannot tell, and one profiled pass does: then a piece that was compiled counts as one node.
        """
        if hasattr(self.session, "get_provider_graph_assignment_info"):
            parts = [
                (part.ep_name, [node.op_type for node in part.get_nodes()]) for part in self.session.get_provider_graph_assignment_info()
            ]
        else:
            with tempfile.TemporaryDirectory() as folder:
                session, self.session = self.session, self._open_session(os.path.join(folder, "profile"))
                self.outputs([{"input_ids": [self.facts["pad_id"]] * 4}])
                events = json.loads(Path(self.session.end_profiling()).read_text("utf-8"))
                self.session = session
            ran = {event["name"]: event["args"] for event in events if event.get("args", {}).get("provider")}
            parts = [(found["provider"], [found["op_name"]]) for found in ran.values()]
        least = self.facts["min_share"] if self.provider == self.facts["provider"] else 0.0
        found = placement(self.provider, parts)
        if self.compiled:  # one node stands for all that were compiled into it: what they were is known since then
            found = {**self.compiled["placement"], "pieces": found["pieces"]}
        return {**found, "least": least}


def part(name: str) -> ModuleType:
    """The module answers/`name`.py: how a task reads an item and what it makes of the outputs.

    read(bundle, item) -> (rows, kept); decode(bundle, outputs, kept) -> answer, or generate and tokens as `Bundle` has them;
    outputs(bundle, feeds), where a decoder is beside the encoder; line(answer) -> str; WHOLE, if it is true: the tokenizer cuts nothing.
    """
    package = f"{__name__}_answers"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package, "The folder answers/, whose modules may import each other.")
        sys.modules[package].__path__ = [str(ANSWERS)]
    if not name.isidentifier() or not (ANSWERS / f"{name}.py").is_file():
        raise BundleError(f"{ANSWERS} has no {name}.py: it cannot answer this task")
    return importlib.import_module(f"{package}.{name}")


def placement(provider: str, parts: Sequence[tuple[str, Sequence[str]]]) -> dict[str, Any]:
    """`parts`: who takes each piece of the graph, and the types of its nodes. Raises BundleError when `provider` takes none."""
    taken = sum(len(types) for name, types in parts if name == provider)
    left = Counter(kind for name, types in parts if name != provider for kind in types)
    if not taken:
        raise BundleError(f"{provider} takes no part of this model: all of its {sum(left.values())} nodes would run on {CPU}")
    nodes = taken + sum(left.values())
    return {
        **{"provider": provider, "nodes": nodes, "taken": taken, "share": taken / nodes},
        **{"pieces": sum(name == provider for name, _ in parts), "left": dict(left.most_common())},
    }


def plugged(provider: str) -> list[Any]:
    """The devices of a provider that comes as a package of its own; none when it does not, or is not installed."""
    try:
        package = importlib.import_module(PLUGINS[provider])
    except (KeyError, ImportError):
        return []
    try:
        if not hasattr(ort, "get_ep_devices"):
            raise BundleError("it is too old for such packages")
        if all(device.ep_name != provider for device in ort.get_ep_devices()):
            ort.register_execution_provider_library(provider, package.get_library_path())
        return [device for device in ort.get_ep_devices() if device.ep_name == provider]
    except ERRORS as error:
        raise BundleError(f"onnxruntime {ort.__version__} cannot use {PLUGINS[provider]}: {error}") from None


def read_facts(folder: Path) -> dict[str, Any]:
    path = folder / "edgetune.json"
    if not path.is_file():
        raise BundleError(f"{folder} is not an edgetune bundle (no edgetune.json in it)")
    [facts] = read_json(path, [path.read_bytes()])
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise BundleError(f"{path} is not of the kind {SCHEMA}")
    facts = {**OLDER, **facts}
    if lacking := [key for key in KEYS if key not in facts]:
        raise BundleError(f"{path} is not complete: no {', '.join(lacking)}")
    here, least = ([int(part) for part in version.split(".")[:2]] for version in (ort.__version__, facts["onnxruntime_min"]))
    if here < least:
        raise BundleError(f"onnxruntime {ort.__version__} is too old, this bundle needs {facts['onnxruntime_min']} or newer")
    return facts


def read_golden(folder: Path) -> list[dict[str, Any]]:
    path = inside(folder, "golden.jsonl")
    return read_json(path, path.read_bytes().splitlines())


def read_json(path: Path, texts: Sequence[bytes]) -> list[Any]:
    try:
        return [json.loads(text) for text in texts]
    except ValueError as error:
        raise BundleError(f"{path} is damaged: {error}") from None


def inside(folder: Path, name: str) -> Path:
    """The file `name` of the folder, which must be there and must not be anywhere else."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.anchor or ".." in path.parts:
            raise BundleError(f"edgetune.json names a file outside of the folder: {name}")
    if not (folder / name).is_file():
        raise BundleError(f"no file {folder / name}: the bundle is not complete")
    return folder / name


def of_tokens(name: str, array: np.ndarray) -> bool:
    """Whether an output [rows, ...] says something about every token."""
    return array.ndim == 3 or name in ("start_logits", "end_logits")


def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one rank, the first axis filled up with zeros to the longest."""
    longest = max((len(part) for part in parts if part.ndim), default=0)
    return np.stack([np.pad(part, [(0, longest - len(part))] + [(0, 0)] * (part.ndim - 1)) if part.ndim else part for part in parts])


def compared(found: Any, expected: Sequence[Any]) -> Iterator[tuple[float, float]]:
    """(found, expected) values. `expected` has one for each place of the array `found`, or [place, what is there] for some of them."""
    for number, item in enumerate(expected):
        place, value = item if isinstance(item, list) else (number, item)
        if isinstance(value, list):
            yield from compared(found[place], value)
        else:
            yield float(found[place]), float(value)


def architecture() -> str:
    """Of this machine, as edgetune.json spells it."""
    return {"arm64": "aarch64", "ARM64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())


def golden(bundle: Bundle) -> dict[str, Any]:
    """Compare with golden.jsonl: the same token ids, and outputs within a tolerance x max(1, the largest expected of that output).

    The tolerance is edgetune.json's `golden.tolerance` on the architecture and provider that wrote the rows, `golden.elsewhere` on others,
    which round differently. At most a share of `golden.changed` of the rows, or one, may have another answer (arg max of `logits`).

    Greedy continuations must be the same for fp32; a quantised model may take another of two near tokens on another CPU. An accelerator
    must take the share of the nodes that the target asks for.
    """
    rows, asked = read_golden(bundle.folder), bundle.facts["golden"]
    every = len(rows)
    if bundle.simulated and every > SIMULATED_ROWS:
        rows = [rows[i * every // SIMULATED_ROWS] for i in range(SIMULATED_ROWS)]
    native = (architecture(), bundle.provider) == (asked["architecture"], asked["provider"])
    tolerance = float(asked["tolerance" if native else "elsewhere"])
    failures: list[dict[str, Any]] = []
    largest, changed, same = 0.0, 0, []
    for number, row in enumerate(rows, 1):
        made = bundle.read(row)[0][0]
        if any(row[name] != made.get(name) for name in bundle.inputs if name in row):
            failures.append({"row": number, "what": "other token ids"})
            continue
        for name, values in bundle.outputs([made]).items():
            found = values[0, -1] if bundle.generation is not None else values[0]  # of a generator: what comes next
            pairs = np.array([*compared(found, row[name])])
            error = float(np.abs(pairs[:, 0] - pairs[:, 1]).max() / max(1.0, np.abs(pairs[:, 1]).max()))
            largest = max(largest, error)
            if bundle.generation is not None or (name == "logits" and values.ndim == 2):
                changed += int(pairs[:, 0].argmax() != pairs[:, 1].argmax())
            if not error <= tolerance:  # so that "not a number" fails
                failures.append({"row": number, "what": f"other {name}", "error": error})
        if "completion" in row:
            same.append(list(islice(bundle.tokens(made), len(row["completion"]))) == row["completion"])
            if not same[-1] and bundle.facts["scheme"] == "fp32":
                failures.append({"row": number, "what": "another continuation"})
    if changed > max(1, asked["changed"] * len(rows)):
        failures.append({"what": "other answers", "rows": changed, "allowed": asked["changed"]})
    placed = bundle.placement
    return {
        "passed": bool(rows) and not failures and (placed is None or placed["share"] >= placed["least"]),
        "provider": bundle.provider,
        "placement": placed,
        "rows": len(rows),
        "of": every,
        "max_error": largest,
        "tolerance": tolerance,
        "native": native,
        "changed": changed,
        "completions": {"rows": len(same), "same": sum(same)},
        "failures": failures,
    }


def benchmark(
    bundle: Bundle, batch: int, sequences: Sequence[int | None], runs: int, seconds: float, items: Sequence[Any] = ()
) -> dict[str, Any]:
    """Raw times in ms of single passes at each sequence length (None: the user's own), in this process; see `passes`.

    The user's own are `items`, read as `Bundle.read` does, or else ids of the lengths that edgetune.json keeps; there `text_ms` times the
    way from an item to its outputs, tokenisation included. `cold_start_ms` is from the start of the process to the first answer.
    `decode` times single tokens of a generator after a prompt.
    """
    if bundle.simulated:
        raise BundleError(f"{bundle.provider} is a simulator on this machine, whose times would mean nothing: measure on the device")
    tokens = [token for row in read_golden(bundle.folder) for token in row["input_ids"]]  # ids that this model can read

    def filled(length: int) -> dict[str, list[int]]:
        return {"input_ids": list(islice(cycle(tokens), min(length, bundle.max_length)))}

    items = [item for item in items if readable(bundle, item)]
    real = [row for item in items for row in bundle.read(item)[0]] or [filled(length) for length in bundle.facts["lengths"] or [16]]
    bundle.outputs([real[0]])
    cold_start_ms = since_start_ms()
    latency = []
    for asked in sequences:
        rows = batches(real if asked is None else [filled(asked)], batch)
        entry = {
            "batch": batch,
            "sequence": mean_length([[row["input_ids"] for row in some] for some in rows]),
            "lengths": "fixed" if asked else "real",
            **passes(bundle.outputs, rows, runs, seconds),
        }
        if asked is None:
            said = batches(items or [spoken(bundle, row["input_ids"]) for row in real], batch)
            entry["text_ms"] = passes(
                lambda some: bundle.outputs([row for item in some for row in bundle.read(item)[0]]), said, runs, seconds
            )["ms"]
        latency.append(entry)
    decode = None
    if bundle.generation is not None:
        prompt = filled(max(1, min(128, bundle.max_length - DECODE_STEPS - 1)))
        stream = bundle.tokens(prompt)
        next(stream)  # the prefill
        steps = [milliseconds(next, stream) for _ in range(bundle.max_length - 2)[:DECODE_STEPS]]
        decode = {"prompt": len(prompt["input_ids"]), "ms": steps}
    return {
        **{"onnxruntime": ort.__version__, "provider": bundle.session.get_providers()[0], "threads": bundle.threads},
        **{"load_ms": bundle.load_ms, "cold_start_ms": cold_start_ms, "peak_rss_bytes": peak_rss_bytes()},
        **{"latency": latency, "decode": decode, "placement": bundle.placement},
    }


def readable(bundle: Bundle, item: Any) -> bool:
    """Whether `item` is one that the model asks for, has tokens, and not more than a generator takes."""
    try:
        return all(row["input_ids"] for row in bundle.read(item)[0])
    except BundleError:
        return False


def spoken(bundle: Bundle, ids: Sequence[int]) -> dict[str, str]:
    """An item that is about as long as `ids`: as many equal parts of them as are asked; where those do not suit, of the golden rows."""
    asks = bundle.facts["asks"]
    size = -(-len(ids) // len(asks))
    made = {name: bundle.tokenizer.decode(ids[i * size : (i + 1) * size]) for i, name in enumerate(asks)}
    if readable(bundle, made):
        return made
    return bundle.item(min(read_golden(bundle.folder), key=lambda row: abs(len(row["input_ids"]) - len(ids))))


def passes(run: Callable[[Any], Any], inputs: Sequence[Any], runs: int, seconds: float) -> dict[str, Any]:
    """`run` over `inputs` in turn: `ms` of at most `runs` passes or `seconds`, whichever is first.

    Before that the first WINDOW inputs are repeated until their median time is within STEADY of the repetition before, for at most
    MOST_WARM_UP passes or a third of `seconds`: `warm_up` passes, and whether they ended `steady`.
    """
    warm_up, before, steady = 0, 0.0, False
    until = time.perf_counter() + seconds / 3
    while not steady and warm_up < MOST_WARM_UP and time.perf_counter() < until:
        now = sorted(milliseconds(run, item) for item in islice(cycle(inputs), WINDOW))[WINDOW // 2]
        steady = abs(now - before) <= STEADY * before
        warm_up, before = warm_up + WINDOW, now
    ms: list[float] = []
    take = cycle(inputs)
    until = time.perf_counter() + seconds
    while not ms or (len(ms) < runs and time.perf_counter() < until):
        ms.append(milliseconds(run, next(take)))
    return {"ms": ms, "warm_up": warm_up, "steady": steady}


def milliseconds(run: Callable[[Any], Any], item: Any) -> float:
    started = time.perf_counter()
    run(item)
    return (time.perf_counter() - started) * 1000


def batches(rows: Sequence[Any], size: int) -> list[list[Any]]:
    """Each row with the `size` - 1 that follow it; after the last one comes the first."""
    return [[rows[(start + i) % len(rows)] for i in range(size)] for start in range(0, len(rows) * size, size)]


def mean_length(rows: Sequence[Sequence[Sequence[int]]]) -> int:
    lengths = [len(row) for some in rows for row in some]
    return round(sum(lengths) / len(lengths))


def since_start_ms() -> float:
    """Since the start of this process, to 10 ms (Linux); elsewhere since the first line of this program."""
    here = (time.perf_counter() - STARTED) * 1000
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")) * 1000
    except (OSError, AttributeError, ValueError, IndexError):
        return here
    return max(age, here) if ticks else here  # an emulator may not know


def peak_rss_bytes() -> int | None:
    """The largest resident size of this process, in bytes (on Linux not ru_maxrss: it starts from the parent's size)."""
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    def sequence(text: str) -> list[int | None]:
        return [None if part == "real" else int(part) for part in text.split(",")]

    def texts_in(path: str) -> list[str]:
        try:
            return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"cannot read {path}: {error}") from None

    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("texts", nargs="*", help="texts, or JSON objects with all that is asked (none: lines of standard input)")
    add("--golden", action="store_true", help="check against golden.jsonl; exit 4 when it differs")
    add("--benchmark", action="store_true", help="time it; JSON")
    add("--json", action="store_true", help="answers as JSON, one a line")
    add("--threads", type=int, help="default: as edgetune.json says")
    add("--provider", help="execution provider of onnxruntime; default: as edgetune.json says")
    add("--batch", type=int, default=1, help="benchmark: texts a pass")
    add("--sequence", type=sequence, default="real,16,128", help="benchmark: tokens a text; default: %(default)s")
    add(
        "--texts",
        dest="real",
        type=texts_in,
        default=(),
        metavar="FILE",
        help="benchmark: real texts, a JSON string or object a line; default: lengths of edgetune.json",
    )
    add("--runs", type=int, default=100, help="benchmark: passes a shape, at most")
    add("--seconds", type=float, default=3.0, help="benchmark: seconds a shape, at most")
    add("--max-new-tokens", type=int, default=0, help="generation: tokens, at most")
    add("--temperature", type=float, default=0.0, help="generation: 0 takes the likeliest token each time")
    add("--top-p", type=float, default=1.0, help="generation: draw from the likeliest that hold this share")
    add("--seed", type=int, default=0, help="generation: of the drawing")
    add("--stop", action="append", default=[], metavar="TEXT", help="generation: end before this text; repeatable")
    add("--beams", type=int, default=0, help="generation: hypotheses searched, by an encoder with a decoder (0: as edgetune.json says)")
    asked = parser.parse_args(arguments)
    if not (asked.golden or asked.benchmark or asked.texts) and sys.stdin.isatty():
        parser.error('give a text, such as  python run.py "some text"  (--help shows more)')
    return asked


def understood(text: str, asks: Sequence[str], chat: bool = False) -> Any:
    """What was typed: the JSON object with all that is asked, if it is one, or messages of a `chat`; else the text itself."""
    try:
        found = json.loads(text) if text.startswith(("{", "[")) else None
    except ValueError:
        return text
    turns = found.get("messages") if isinstance(found, dict) else found
    if chat and isinstance(turns, list) and turns and all(isinstance(turn, dict) and "role" in turn for turn in turns):
        return turns
    return found if isinstance(found, dict) and set(asks) <= found.keys() else text


def answer(bundle: Bundle, text: str, asked: argparse.Namespace) -> None:
    given = understood(text, bundle.facts["asks"], bundle.generation is not None)
    if bundle.generation is not None:
        stream = str if asked.json else partial(print, end="", flush=True)
        how = (asked.max_new_tokens, asked.temperature, asked.top_p, asked.seed, stream, asked.stop, asked.beams)
        found, shown = bundle.generate(given, *how), ""
    else:
        [found] = bundle.predict([given])
        shown = bundle.line(found) + ("\t(the text was cut)" if found.get("cut") else "")
    print(json.dumps(found) if asked.json else shown, flush=True)


def main(asked: argparse.Namespace, folder: Path) -> int:
    """Exit codes: 0 done, 2 the request cannot be served, 4 the golden vectors differ, 130 interrupted."""
    try:
        bundle = Bundle(folder, asked.threads, asked.provider)
        if asked.golden or asked.benchmark:
            shape = (asked.batch, asked.sequence, asked.runs, asked.seconds, asked.real)
            found = golden(bundle) if asked.golden else benchmark(bundle, *shape)
            print(json.dumps(found))
            return 0 if found.get("passed", True) else 4
        for text in asked.texts or (line.rstrip("\r\n") for line in sys.stdin):
            answer(bundle, text, asked)
        return 0
    except ERRORS as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.exit(main(parse(sys.argv[1:]), Path(__file__).resolve().parent))
