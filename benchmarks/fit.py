"""The whole search, in numbers: a classifier is adapted with the defaults, `edgetune export --fit` makes it small, nothing is set by hand.

    python benchmarks/fit.py NAME DATA --envs DIR [--work DIR] [--rounds 10] [--teachers 1] [--set KEY=VALUE]... [--suffix NAME]

With `--teachers N`, N runs of other seeds on the same splits teach the smaller models together (compress.teacher); every tenth row of train, drawn once, is
validation then. What is compared with is the first run alone. NAME is banking77, snips (its intents) or semeval2010_task8 (its relations); DATA its folder. Measured by
versus/versus.py in one run and in turns at one thread: the searched bundle, its student through plain int8, and plain int8 of the full model.
`--suffix` goes with `--set`: one point of the search is measured by itself, such as three layers by `--set compress.layers=3 --set compress.feed_forward=0`.
Writes results/fit-NAME.json and .md, with the wall time of each command.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sets
from command import edgetune, report

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
Rows = Iterable[tuple[str, str]]


def semeval(data: Path, part: str) -> Rows:
    for line in (data / f"{part}.tsv").read_text("utf-8").splitlines():
        label, _, text = line.partition("\t")
        yield text, label


DATA: dict[str, tuple[str, Callable[[Path, str], Rows]]] = {
    "banking77": ("text-classification", sets.banking77),
    "snips": ("text-classification", sets.snips),
    "semeval2010_task8": ("relation-extraction", semeval),
}


def spent(run: Path, target: str) -> dict[str, float]:
    """Seconds of each stage, as the run noted them; `search`: teachers, students, their graphs and everything up to the verified bundle."""
    stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
    found = {name: round(entry["seconds"], 1) for name, entry in stages.items()}
    parts = [name for name in found if name.partition(":")[0] in ("ensemble", "ensemble-merge", "teach", "compress", "graph")] + [
        f"export:{target}"
    ]
    return {**found, "search": round(sum(found[name] for name in parts), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATA)
    parser.add_argument("data", type=Path)
    parser.add_argument("--envs", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-fit"))
    parser.add_argument("--rounds", default="10")
    parser.add_argument("--teachers", type=int, default=1)
    parser.add_argument("--suffix", default="")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of the search, such as compress.layers=3"
    )
    asked = parser.parse_args()
    task, rows = DATA[asked.name]
    name = f"{asked.name}-{asked.suffix}" if asked.suffix else asked.name
    folder, run = asked.work / f"{name}-data", asked.work / name
    folder.mkdir(parents=True, exist_ok=True)
    parts = {part: list(rows(asked.data, part)) for part in ("train", "test")}
    if asked.teachers > 1:
        random.Random(0).shuffle(parts["train"])
        parts["validation"], parts["train"] = parts["train"][::10], [row for i, row in enumerate(parts["train"]) if i % 10]
    for part, some in parts.items():
        sets.write(folder / f"{part}.csv", some)
    target = subprocess.run(
        [sys.executable, "-m", "edgetune", "targets", "detect", "--quiet"], check=True, capture_output=True, text=True
    ).stdout.strip()
    common = ("--model", MODEL, "--data", str(folder), "--task", task, "--method", "full", "--text", "text", "--label", "label")
    teachers = [run, *(asked.work / f"{name}-{seed}" for seed in range(1, asked.teachers))]
    for seed, place in enumerate(teachers):
        edgetune("adapt", *common, "--seed", str(seed), "--output", str(place))
        edgetune("merge", str(place))
    taught = ("--compress-teacher", ",".join(map(str, teachers))) if asked.teachers > 1 else ()
    bundles, settings = asked.work / f"{name}-fit", [part for setting in asked.settings for part in ("--set", setting)]
    edgetune("export", str(run), "--target", target, "--fit", *taught, *settings, "--output", str(bundles))
    search, seconds = report(run)["export"][target], spent(run, target)
    same = [
        part for key in ("layers", "feed_forward", "vocabulary") for part in ("--set", f"compress.{key}=0")
    ]  # weights, for the first table
    edgetune("export", str(run), "--target", target, "--set", "export.fit=false", *same)
    form = search["form"]
    student = run / "merged" if form == "whole" else run / "compressed" / form
    subprocess.run(
        [
            sys.executable,
            str(HERE / "versus" / "versus.py"),
            str(run),
            "--envs",
            str(asked.envs),
            "--tools",
            "onnxruntime",
            "--search",
            str(bundles / target),
            "--student",
            str(student),
            "--rounds",
            asked.rounds,
            "--name",
            f"fit-{name}",
        ],
        check=True,
    )
    place = HERE / "results" / f"fit-{name}.json"
    found = json.loads(place.read_text("utf-8"))
    found["seconds"], found["teachers"], found["settings"] = seconds, asked.teachers, asked.settings
    found["search"] = {key: search[key] for key in ("form", "scheme", "size_bytes", "quality", "baseline", "drop", "verdict", "flips")}
    found["search"]["candidates"] = [slim(row) for row in search["candidates"]]
    place.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def slim(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("form", "scheme", "size_bytes", "p50_ms", "kl", "drop", "passed", "reason")}


if __name__ == "__main__":
    main()
