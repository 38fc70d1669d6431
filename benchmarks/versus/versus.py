"""edgetune beside what a user would pick instead, in one run: onnxruntime's own int8, Olive, OpenVINO with NNCF, PyTorch, ExecuTorch.

    python benchmarks/versus/versus.py RUN --envs DIR [--search BUNDLE --student MERGED] [--tools onnxruntime,olive,...] [--rounds 10]

RUN is a finished run on banking77 (RUN/merged, RUN/data, RUN/bundles). Each tool gets an environment of its own in DIR, which is kept.
Two tables, apart: the **same weights** (RUN/merged) in every tool, beside RUN's bundles; and, with --search, the **whole search**: a
bundle of `edgetune export --fit`, its student MERGED through plain int8 (so that what the student gains is not laid to the quantiser), and
plain int8 of the full model. One thread, each in a process of its own, in turns; real lengths of the test rows, and 128 tokens. A tool
that cannot be installed or does not build is recorded with its error. Writes results/versus-banking77.json and .md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.runtime import contestants, intervals, machine, quality
from edgetune.runtime.contestants import Contestant, compressed
from edgetune.runtime.measure import Entrant, Measurement, Shape, in_turns
from edgetune.runtime.process import Finished, start
from edgetune.tasks import Scores, Task

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
TOOL = HERE / "tool.py"
TIMING = HERE.parents[1] / "edgetune" / "runtime" / "timing.py"
SHAPES = (Shape(1, None), Shape(1, 128))
TORCH = ("torch==2.13.0",)  # first and alone, or an index may choose a build with CUDA
PACKAGES: dict[str, tuple[tuple[str, ...], ...]] = {  # of each tool, one pip call after the other
    "onnxruntime": (TORCH, ("onnx", "onnxscript", "onnxruntime", "transformers")),
    "olive": (TORCH, ("olive-ai", "requests", "onnx", "onnxscript", "onnxruntime", "transformers")),
    "openvino": (("openvino", "nncf", "tokenizers", "numpy"),),
    "torch": (TORCH, ("torchao", "transformers", "tokenizers", "numpy")),
    "torchao": (),
    "executorch": (TORCH, ("executorch", "transformers")),
}
SHARED = {"torchao": "torch"}  # tools that live in another's environment


@dataclass(frozen=True)
class Rival:
    """One row of a table. `run` starts its benchmark; `answers` are its classes for the test rows; `cost` of its export."""

    name: str
    run: Any
    path: Path
    sizes: dict[str, int]
    answers: np.ndarray
    cost: dict[str, float | None]


@dataclass(frozen=True)
class Test:
    """The rows that everyone is scored on, by the task's own metric."""

    task: Task
    labels: list[str]
    rows: list[dict[str, Any]]

    def quality(self, answers: np.ndarray) -> float:
        """`answers` [n]: indices of labels."""
        truth = np.array([self.labels.index(row["label"]) for row in self.rows])
        said = np.eye(len(self.labels), dtype=np.float32)[answers]
        scores = Scores((answers == truth).astype(float), np.ones(len(truth)), said, truth)
        found: dict[str, float] = self.task.module.metrics(scores, self.labels)
        return found[self.task.metric]


def timed(command: Sequence[str], log: Path) -> tuple[int, dict[str, float | None]]:
    """Exit code, wall time and peak memory of a process (the largest of it and its children that ended)."""
    started = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment())
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, {"seconds": time.monotonic() - started, "peak_rss_bytes": usage.ru_maxrss * 1024}


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"}


def python_of(tool: str, envs: Path) -> Path:
    """The interpreter of the tool's environment, which is made when it is not there. Raises RuntimeError when pip fails."""
    folder = envs / SHARED.get(tool, tool)
    python, done = folder / "bin" / "python", folder / ".installed"
    if done.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    for packages in PACKAGES[SHARED.get(tool, tool)]:
        found = subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], capture_output=True, text=True, check=False)
        if found.returncode:
            raise RuntimeError(f"pip install {' '.join(packages)}: {found.stderr.strip().splitlines()[-1]}")
    done.touch()
    return python


def build(tool: str, envs: Path, merged: Path, train: Path, work: Path) -> dict[str, float | None]:
    """The tool's int8 model of `merged`, in the empty folder `work`. Raises RuntimeError with the last line that it wrote."""
    python = python_of(tool, envs)
    if tool == "openvino":
        export = python_of("onnxruntime", envs)
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import tool; from pathlib import Path; "
        code += f"tool.float_graph(Path({str(merged)!r}), Path({str(work / 'float.onnx')!r}))"
        _, before = finished([str(export), "-c", code], work / "export.log")
    else:
        before = {"seconds": 0.0, "peak_rss_bytes": 0.0}
    _, cost = finished([str(python), str(TOOL), tool, "build", str(merged), str(work), str(train)], work / "build.log")
    for name in ("export.log", "build.log", "cache", "olive"):
        path = work / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return {
        "seconds": (cost["seconds"] or 0) + (before["seconds"] or 0),
        "peak_rss_bytes": max(cost["peak_rss_bytes"] or 0, before["peak_rss_bytes"] or 0),
    }


def finished(command: Sequence[str], log: Path) -> tuple[int, dict[str, float | None]]:
    code, cost = timed(command, log)
    if code:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise RuntimeError(next((line for line in reversed(lines) if "Error" in line), lines[-1] if lines else f"exit {code}")[:300])
    return code, cost


def foreign(tool: str, envs: Path, merged: Path, work: Path, test: Path, cost: dict[str, float | None]) -> Rival:
    """A tool that runs its model itself."""
    base = [str(python_of(tool, envs)), str(TOOL), tool]
    scored = start([*base, "score", str(merged), str(work), str(test)])
    if not scored.found:
        raise RuntimeError(scored.stderr.splitlines()[-1])

    def run(arguments: Sequence[str]) -> Finished:
        return start([*base, "time", str(merged), str(work), str(TIMING), *arguments])

    model = [path for path in work.iterdir() if path.is_file() and path.name != "config.json"]
    words = [merged / name for name in ("tokenizer.json", "config.json")]
    return Rival(tool, run, work, sizes(model, words), np.array(scored.found["answers"]), cost)


def sizes(model: Sequence[Path], others: Sequence[Path]) -> dict[str, int]:
    every = [*model, *others]
    return {
        "size_bytes": sum(path.stat().st_size for path in model),
        "files_bytes": sum(path.stat().st_size for path in every),
        "download_bytes": sum(map(compressed, every)),
    }


def native(name: str, one: Contestant, test: Test, cost: dict[str, float | None]) -> Rival:
    """What onnxruntime runs, by run.py: a bundle, or the graph of another tool."""
    logits = quality.score(one, test.rows, threads=1).logits
    assert logits is not None
    order = [str(label) for label in one.facts["labels"]]
    answers = np.array([test.labels.index(order[i]) for i in logits.argmax(-1)])
    return Rival(name, one.entrant(1).run, one.path, one.sizes(), answers, cost)


def rival(tool: str, envs: Path, merged: Path, run: Path, like: Contestant, work: Path, test: Test) -> Rival:
    (work / "files").mkdir(parents=True)
    cost = build(tool, envs, merged, run / "data" / "train.jsonl", work / "files")
    if not (work / "files" / "model.onnx").is_file():
        return foreign(tool, envs, merged, work / "files", run / "data" / "test.jsonl", cost)
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copyfile(merged / name, work / "files" / name)
    return native(tool, contestants.against(work / "files" / "model.onnx", like, work / "bundle"), test, cost)


def export_again(run: Path, bundle: Path, work: Path) -> dict[str, float | None]:
    """What `edgetune export` of this bundle costs, from the merged model: graph, quantisation, gate, golden vectors."""
    facts = json.loads((bundle / "edgetune.json").read_text("utf-8"))
    copy = work / "export"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("bundles", "graph", ".work", "checkpoint-*"))
    command = [sys.executable, "-m", "edgetune", "export", str(copy), "--target", facts["target"], "--scheme", facts["scheme"]]
    try:
        return finished(command, work / "export.log")[1]
    except RuntimeError as error:
        print(f"export again: {error}", file=sys.stderr)
        return {"seconds": None, "peak_rss_bytes": None}


def table(rivals: Sequence[Rival], test: Test, rounds: int, reference: str) -> list[dict[str, Any]]:
    """Measured in turns; ratios of time to the rival called `reference`."""
    texts = [row["text"] for row in test.rows[:: max(1, len(test.rows) // 100)][:100]]
    entrants = [Entrant(one.path, one.run, 1) for one in rivals]
    measured = in_turns(entrants, rounds=rounds, shapes=SHAPES, texts=texts)
    base = next((found for one, found in zip(rivals, measured, strict=True) if one.name == reference), measured[0])
    return [row(one, found, base, test) for one, found in zip(rivals, measured, strict=True)]


def row(one: Rival, found: Measurement, base: Measurement, test: Test) -> dict[str, Any]:
    latency = []
    for item, other in zip(found.latency, base.latency, strict=True):
        value, ci95 = intervals.ratio(item.times, other.times)
        latency.append({**{k: v for k, v in vars(item).items() if k != "times"}, "ratio": {"value": value, "ci95": ci95}})
    return {
        "name": one.name,
        **one.sizes,
        "metric": test.task.metric,
        "quality": test.quality(one.answers),
        "rows": len(test.rows),
        "load_ms": found.load_ms,
        "cold_start_ms": found.cold_start_ms,
        "peak_rss_bytes": found.peak_rss_bytes,
        "export": one.cost,
        "latency": latency,
    }


def markdown(title: str, entries: Sequence[dict[str, Any]], reference: str) -> str:
    head = f"## {title}\n\n| | model file | files, compressed | {entries[0]['metric'].replace('_', ' ')} | p50 ms, real lengths | from text | x {reference} | p50 ms, 128 tokens "
    head += f"| x {reference} | cold start ms | peak memory | export |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    lines = []
    for one in entries:
        real, long = one["latency"]
        cost = f"{one['export']['seconds']:.0f} s, {one['export']['peak_rss_bytes'] / 1e9:.1f} GB" if one["export"]["seconds"] else "-"
        cells = [one["name"], mb(one["size_bytes"]), mb(one["download_bytes"]), f"{one['quality']:.4f}", f"{real['p50_ms']:.2f}"]
        cells += [f"{real['text_p50_ms']:.2f}", ratio(real), f"{long['p50_ms']:.2f}", ratio(long), f"{one['cold_start_ms']:.0f}"]
        lines.append(f"| {' | '.join([*cells, mb(one['peak_rss_bytes']), cost])} |")
    return head + "\n".join(lines) + "\n"


def mb(count: float) -> str:
    return f"{count / 1e6:.1f} MB"


def ratio(item: dict[str, Any]) -> str:
    low, high = item["ratio"]["ci95"]
    return f"{item['ratio']['value']:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path)
    add("--envs", type=Path, required=True)
    add("--search", type=Path, action="append", default=[])
    add("--student", type=Path)
    add("--tools", default=",".join(PACKAGES))
    add("--rounds", type=int, default=10)
    add("--name", default="versus-banking77")
    asked = parser.parse_args()
    run, merged, envs = asked.run.resolve(), asked.run.resolve() / "merged", asked.envs.resolve()
    rows = [json.loads(line) for line in (run / "data" / "test.jsonl").read_text("utf-8").splitlines()]
    bundles = [path for path in sorted((run / "bundles").iterdir()) if path.resolve() not in [one.resolve() for one in asked.search]]
    like = contestants.bundle(bundles[0])
    labels = [str(label) for label in like.facts["labels"]]
    test = Test(like.task, labels, [one for one in rows if one["label"] in labels])
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "test").mkdir()
        ours = []
        for number, bundle in enumerate(bundles):
            (work / f"ours-{number}").mkdir()
            cost = export_again(run, bundle, work / f"ours-{number}")
            ours.append(native(f"edgetune {bundle.name}", contestants.bundle(bundle), test, cost))
        others = []
        for tool in asked.tools.split(","):
            print(f"{tool}: building", file=sys.stderr)
            try:
                others.append(rival(tool, envs, merged, run, like, work / tool, test))
            except (RuntimeError, subprocess.CalledProcessError) as error:
                refused[tool] = str(error)
                print(f"{tool}: {error}", file=sys.stderr)
        searched = [
            native(f"edgetune --fit {path.parent.name}/{path.name}", contestants.bundle(path), test, {"seconds": None})
            for path in asked.search
        ]
        if asked.student:
            try:
                plain = rival(
                    "onnxruntime", envs, asked.student.resolve(), run, contestants.bundle(asked.search[0]), work / "student", test
                )
                searched.append(Rival(**{**vars(plain), "name": "the student, plain int8"}))
            except RuntimeError as error:
                refused["the student, plain int8"] = str(error)
        here = machine.fingerprint()
        found: dict[str, Any] = {"schema": "edgetune.versus/1", "date": time.strftime("%Y-%m-%d"), "rounds": asked.rounds, "machine": here}
        found["same_weights"] = table([*ours, *others], test, asked.rounds, "onnxruntime")
        if searched:
            full = [one for one in others if one.name == "onnxruntime"]
            found["whole_search"] = table([*searched, *full], test, asked.rounds, "onnxruntime")
        here |= {"load_after": machine.load(), "busy_after": machine.busy()}
    found["refused"] = refused
    found["versions"] = {tool: versions(envs / tool) for tool in PACKAGES if (envs / tool / ".installed").exists()}
    text = markdown("Same weights", found["same_weights"], "onnxruntime")
    if searched:
        text += "\n" + markdown("Whole search", found["whole_search"], "onnxruntime")
    text += "".join(f"\n{tool}: not measured: {why}\n" for tool, why in refused.items())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{asked.name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    (RESULTS / f"{asked.name}.md").write_text(text, "utf-8")
    print(text)


def versions(folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [str(folder / "bin" / "python"), "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=False
    )
    wanted = ("onnxruntime", "olive-ai", "openvino", "nncf", "torch", "torchao", "executorch", "transformers")
    return {one["name"]: one["version"] for one in json.loads(done.stdout or "[]") if one["name"] in wanted}


if __name__ == "__main__":
    main()
