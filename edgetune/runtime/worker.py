#!/usr/bin/env python3
"""Run this model: ask it, check it, time it.

    python run.py "turn on the kitchen light"     an answer for each text (or for each line of standard input)
    python run.py --golden                        does it compute here what it computed where it was made?
    python run.py --benchmark                     how fast is it on this machine, in how much memory? (JSON)

Python 3.9 or newer, and:  pip install onnxruntime tokenizers numpy
To embed it, copy the folder and write:  from run import Bundle; Bundle("folder").predict(["some text"])
"""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports, which a cold start pays for

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections import Counter  # noqa: E402
from functools import partial  # noqa: E402
from itertools import cycle, islice  # noqa: E402
from pathlib import Path, PurePosixPath, PureWindowsPath  # noqa: E402
from typing import Any, Callable, Iterator, Sequence  # noqa: E402, UP035

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
    *("task", "target", "architecture", "scheme", "model", "provider", "provider_options", "min_share", "session", "opset", "ir"),
    *("onnxruntime_min", "labels", "max_length", "truncation_side", "pad_id", "confidence", "tolerance", "inputs", "outputs", "lengths"),
    *("metrics", "generation", "made_by", "sha256"),
)
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
WINDOW = 5  # passes whose median tells whether a shape is warm
STEADY = 0.05  # of that median
MOST_WARM_UP = 50  # passes that are not counted
DECODE_STEPS = 32  # tokens generated to time generation


class BundleError(Exception):
    """What is wrong with the folder, this machine or the request, in one line."""


ERRORS: tuple[type[Exception], ...] = (BundleError, *ORT_ERRORS)


class Bundle:
    """A model folder, loaded. `facts` is its edgetune.json.

    `threads` and `provider` stand in for the ones that the folder names. Raises BundleError.
    """

    def __init__(self, folder: str | Path, threads: int | None = None, provider: str | None = None) -> None:
        self.folder = Path(folder)
        self.facts = read_facts(self.folder)
        self.threads = threads or self.facts["session"]["threads"]
        self.provider = provider or self.facts["provider"]
        self.max_length: int = self.facts["max_length"]
        self.generation: dict[str, Any] | None = self.facts["generation"]
        started = time.perf_counter()
        self.tokenizer = self._open_tokenizer()
        self.session = self._open_session()
        self.load_ms = (time.perf_counter() - started) * 1000
        self.inputs = {item.name: item for item in self.session.get_inputs()}
        self.outputs = [item.name for item in self.session.get_outputs()]
        fixed = self.inputs["input_ids"].shape[1] if "input_ids" in self.inputs else None
        self.sequence = fixed if isinstance(fixed, int) else 0  # 0: any number of tokens
        self.placement = self._placement() if self.provider != CPU else None

    def encode(self, text: str) -> tuple[list[int], bool]:
        """(token ids as in training, were some cut off?). A prompt that does not fit is an error; any other text is cut."""
        if self.generation is None:
            found = self.tokenizer.encode(text)
            return found.ids, bool(found.overflowing)
        prompt = self.generation["prefix"] + text.strip() + self.generation["suffix"]
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        if len(ids) >= self.max_length:
            raise BundleError(f"the prompt has {len(ids)} tokens; this model takes {self.max_length - 1}")
        return ids, False

    def logits(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of some texts -> float32 [texts, labels]; of a generator [texts, longest, vocabulary]. Padded on the right.

        A graph of fixed shapes takes them one by one, padded to its own length.
        """
        if not rows or not all(rows):
            raise BundleError("nothing to read: the text has no tokens")
        length = self.sequence or max(map(len, rows))
        if max(map(len, rows)) > length:
            raise BundleError(f"a text has {max(map(len, rows))} tokens; this model takes {length}")
        ids = np.full((len(rows), length), self.facts["pad_id"], dtype=np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        if self.sequence:
            return np.concatenate([self.forward(ids[i : i + 1], mask[i : i + 1])[0] for i in range(len(rows))])
        return self.forward(ids, mask)[0]

    def forward(self, ids: np.ndarray, mask: np.ndarray, past: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """One pass over `ids` [n, s], with `mask` [n, past + s] 1 where a token counts -> float32 logits, and the new cache.

        `past` is the cache that an earlier pass returned; None is the empty one.
        """
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.maximum(mask.cumsum(-1) - 1, 0)[:, -ids.shape[1] :],
        }
        given = dict(past or {})
        for name, item in self.inputs.items():
            if name not in given:
                value = feeds[name] if name in feeds else np.zeros((len(ids), item.shape[1], 0, item.shape[3]))  # an empty past
                given[name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value, DTYPES[item.type]))
        logits, *present = self.session.run_with_ort_values(self.outputs, given)
        cache = {name.replace("present", "past_key_values"): value for name, value in zip(self.outputs[1:], present)}  # noqa: B905
        return logits.numpy().astype(np.float32, copy=False), cache

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """One answer a text, each in a pass of its own, so that no text can change the answer of another.

        Classification: `label` (None: too unsure), `confidence`, `scores` of the three best labels, `cut`.
        Generation: see `generate`.
        """
        return [self._classify(text) if self.generation is None else self.generate(text) for text in texts]

    def _classify(self, text: str) -> dict[str, Any]:
        ids, cut = self.encode(text)
        trust = self.facts["confidence"] or {"temperature": 1.0, "reject_below": 0.0}
        chances = softmax(self.logits([ids])[0] / trust["temperature"])
        best = np.argsort(-chances, kind="stable")[:3]
        labels, top = self.facts["labels"], float(chances[best[0]])
        return {
            "label": labels[best[0]] if top >= trust["reject_below"] else None,
            "confidence": top,
            "scores": {labels[i]: float(chances[i]) for i in best},
            "cut": cut,
        }

    def generate(
        self, prompt: str, max_new_tokens: int = 0, temperature: float = 0, top_p: float = 1, seed: int = 0, on_text: Any = str
    ) -> dict[str, Any]:
        """Continue `prompt`: `text`, `tokens` (ids without the stop token), `finished` (False: `max_new_tokens` or length ran out).

        Temperature 0 takes the likeliest token each time; above, tokens are drawn (`top_p`, `seed`). `on_text` is called with
        the text piece by piece. `max_new_tokens` 0: as edgetune.json says.
        """
        if self.generation is None:
            raise BundleError("this model does not generate text")
        ids: list[int] = []
        shown, finished = "", False
        stream = self.tokens(self.encode(prompt)[0], sampler(temperature, top_p, seed))
        for token in islice(stream, max_new_tokens or self.generation["max_new_tokens"]):
            finished = token in self.generation["stop_ids"]
            if finished:
                break
            ids.append(token)
            text = self.tokenizer.decode(ids)
            if not text.endswith("\ufffd"):  # half of a character: wait for the rest of it
                on_text(text[len(shown) :])
                shown = text
        text = self.tokenizer.decode(ids)
        on_text(text[len(shown) :])
        return {"text": text, "tokens": ids, "finished": finished}

    def tokens(self, prompt: Sequence[int], choose: Callable[[np.ndarray], Any] = np.argmax) -> Iterator[int]:
        """The tokens that follow `prompt`, one at a time, until the model's length is full. The reader decides when to stop."""
        if not prompt:
            raise BundleError("nothing to continue: the prompt has no tokens")
        ids, past = np.array([prompt], dtype=np.int64), None
        for length in range(len(prompt), self.max_length):
            logits, past = self.forward(ids, np.ones((1, length), dtype=np.int64), past)
            token = int(choose(logits[0, -1]))
            yield token
            ids = np.array([[token]], dtype=np.int64)

    def _open_tokenizer(self) -> Tokenizer:
        path = inside(self.folder, "tokenizer.json")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  (tokenizers raises nothing narrower)
            raise BundleError(f"cannot load {path}: {error}") from None
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if self.generation is None:
            tokenizer.enable_truncation(self.max_length, direction=self.facts["truncation_side"])
        return tokenizer

    def _open_session(self, profile: str = "") -> ort.InferenceSession:
        path, available = inside(self.folder, self.facts["model"]), ort.get_available_providers()
        if self.provider not in available:
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
                self.logits([[self.facts["pad_id"]] * 4])
                events = json.loads(Path(self.session.end_profiling()).read_text("utf-8"))
                self.session = session
            ran = {event["name"]: event["args"] for event in events if event.get("args", {}).get("provider")}
            parts = [(found["provider"], [found["op_name"]]) for found in ran.values()]
        least = self.facts["min_share"] if self.provider == self.facts["provider"] else 0.0
        return {**placement(self.provider, parts), "least": least}


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


def read_facts(folder: Path) -> dict[str, Any]:
    path = folder / "edgetune.json"
    if not path.is_file():
        raise BundleError(f"{folder} is not an edgetune bundle (no edgetune.json in it)")
    [facts] = read_json(path, [path.read_bytes()])
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise BundleError(f"{path} is not of the kind {SCHEMA}")
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


def softmax(logits: np.ndarray) -> np.ndarray:
    """[n] -> probabilities [n] float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max())
    return raised / raised.sum()


def sampler(temperature: float, top_p: float, seed: int) -> Callable[[np.ndarray], Any]:
    """How the next token is chosen: the likeliest, or drawn from the smallest set that holds `top_p` (arXiv:1904.09751)."""
    random = np.random.default_rng(seed)

    def draw(logits: np.ndarray) -> Any:
        order = np.argsort(-logits, kind="stable")
        chances = softmax(logits[order] / temperature)
        kept = chances[: int(np.searchsorted(chances.cumsum(), top_p)) + 1]
        return order[random.choice(len(kept), p=kept / kept.sum())]

    return draw if temperature > 0 else np.argmax


def golden(bundle: Bundle) -> dict[str, Any]:
    """Compare with golden.jsonl: the same token ids, and logits within `tolerance` x max(1, the largest expected).

    Greedy continuations must be the same for fp32; a quantised model may take another of two near tokens on another CPU. An accelerator
    must take the share of the nodes that the target asks for.
    """
    rows, tolerance = read_golden(bundle.folder), float(bundle.facts["tolerance"])
    failures: list[dict[str, Any]] = []
    largest, same = 0.0, []
    for number, row in enumerate(rows, 1):
        ids, _ = bundle.encode(row["text"])
        if ids != row["input_ids"]:
            failures.append({"row": number, "what": "other token ids"})
            continue
        logits, expected = bundle.logits([ids])[0], row["logits"]
        if bundle.generation is not None:
            logits, expected = logits[-1][[token for token, _ in expected]], [value for _, value in expected]
        error = float(np.abs(logits - np.array(expected)).max() / max(1.0, np.abs(expected).max()))
        largest = max(largest, error)
        if not error <= tolerance:  # so that "not a number" fails
            failures.append({"row": number, "what": "other logits", "error": error})
        if "completion" in row:
            same.append(list(islice(bundle.tokens(ids), len(row["completion"]))) == row["completion"])
            if not same[-1] and bundle.facts["scheme"] == "fp32":
                failures.append({"row": number, "what": "another continuation"})
    placed = bundle.placement
    return {
        "passed": bool(rows) and not failures and (placed is None or placed["share"] >= placed["least"]),
        "provider": bundle.provider,
        "placement": placed,
        "rows": len(rows),
        "max_error": largest,
        "tolerance": tolerance,
        "completions": {"rows": len(same), "same": sum(same)},
        "failures": failures,
    }


def benchmark(
    bundle: Bundle, batch: int, sequences: Sequence[int | None], runs: int, seconds: float, texts: Sequence[str] = ()
) -> dict[str, Any]:
    """Raw times in ms of single passes at each sequence length (None: the user's own), in this process; see `passes`.

    The user's own are `texts`, cut as `encode` does, or else ids of the lengths that edgetune.json keeps; there `text_ms` times the way
    from a text to its logits, tokenisation included. `cold_start_ms` is from the start of the process to the first answer. `decode`
    times single tokens of a generator after a prompt.
    """
    tokens = [token for row in read_golden(bundle.folder) for token in row["input_ids"]]  # ids that this model can read

    def filled(length: int) -> list[int]:
        return list(islice(cycle(tokens), min(length, bundle.max_length)))

    texts = [text for text in texts if readable(bundle, text)]
    real = [bundle.encode(text)[0] for text in texts] or [filled(length) for length in bundle.facts["lengths"] or [16]]
    bundle.logits([real[0]])
    cold_start_ms = since_start_ms()
    latency = []
    for asked in sequences:
        rows = batches(real if asked is None else [filled(asked)], batch)
        item = {
            "batch": batch,
            "sequence": mean_length(rows),
            "lengths": "fixed" if asked else "real",
            **passes(bundle.logits, rows, runs, seconds),
        }
        if asked is None:
            said = batches(texts or [bundle.tokenizer.decode(ids) for ids in real], batch)
            item["text_ms"] = passes(lambda some: bundle.logits([bundle.encode(text)[0] for text in some]), said, runs, seconds)["ms"]
        latency.append(item)
    decode = None
    if bundle.generation is not None:
        prompt = filled(max(1, min(128, bundle.max_length - DECODE_STEPS - 1)))
        stream = bundle.tokens(prompt)
        next(stream)  # the prefill
        decode = {"prompt": len(prompt), "ms": [milliseconds(next, stream) for _ in range(DECODE_STEPS)]}
    return {
        **{"onnxruntime": ort.__version__, "provider": bundle.session.get_providers()[0], "threads": bundle.threads},
        **{"load_ms": bundle.load_ms, "cold_start_ms": cold_start_ms, "peak_rss_bytes": peak_rss_bytes()},
        **{"latency": latency, "decode": decode, "placement": bundle.placement},
    }


def readable(bundle: Bundle, text: str) -> bool:
    """Whether `text` has tokens, and not more than a generator takes."""
    try:
        return bool(bundle.encode(text)[0])
    except BundleError:
        return False


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
    add("texts", nargs="*", help="texts (none: lines of standard input)")
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
        help="benchmark: real texts, a JSON string a line; default: lengths of edgetune.json",
    )
    add("--runs", type=int, default=100, help="benchmark: passes a shape, at most")
    add("--seconds", type=float, default=3.0, help="benchmark: seconds a shape, at most")
    add("--max-new-tokens", type=int, default=0, help="generation: tokens, at most")
    add("--temperature", type=float, default=0.0, help="generation: 0 takes the likeliest token each time")
    add("--top-p", type=float, default=1.0, help="generation: draw from the likeliest that hold this share")
    add("--seed", type=int, default=0, help="generation: of the drawing")
    asked = parser.parse_args(arguments)
    if not (asked.golden or asked.benchmark or asked.texts) and sys.stdin.isatty():
        parser.error('give a text, such as  python run.py "some text"  (--help shows more)')
    return asked


def answer(bundle: Bundle, text: str, asked: argparse.Namespace) -> None:
    shown = ""
    if bundle.generation is not None:
        stream = str if asked.json else partial(print, end="", flush=True)
        found = bundle.generate(text, asked.max_new_tokens, asked.temperature, asked.top_p, asked.seed, stream)
    else:
        [found] = bundle.predict([text])
        shown = f"{found['label'] or '(no label)'}   {found['confidence']:.3f}{'   (the text was cut)' if found['cut'] else ''}"
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
