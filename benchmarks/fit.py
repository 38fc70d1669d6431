"""The whole search, in numbers: a classifier is adapted with the defaults, `edgetune export --fit` makes it small, nothing is set by hand.

    python benchmarks/fit.py NAME DATA --envs DIR [--work DIR] [--rounds 10]

NAME is banking77, snips (its intents) or semeval2010_task8 (its relations); DATA its folder. Measured by
versus/versus.py in one run and in turns at one thread: the searched bundle, its student through plain int8, and plain int8 of the full model.
Writes results/fit-NAME.json and .md, with the wall time of each command.
"""

from __future__ import annotations

import argparse
import json
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
    """Seconds of each stage, as the run noted them; `search`: students, their graphs and everything up to the verified bundle."""
    stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
    found = {name: round(entry["seconds"], 1) for name, entry in stages.items()}
    parts = [name for name in found if name.partition(":")[0] in ("teach", "compress", "graph")] + [f"export:{target}"]
    return {**found, "search": round(sum(found[name] for name in parts), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATA)
    parser.add_argument("data", type=Path)
    parser.add_argument("--envs", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-fit"))
    parser.add_argument("--rounds", default="10")
    asked = parser.parse_args()
    task, rows = DATA[asked.name]
    folder, run = asked.work / f"{asked.name}-data", asked.work / asked.name
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        sets.write(folder / f"{part}.csv", rows(asked.data, part))
    target = subprocess.run(
        [sys.executable, "-m", "edgetune", "targets", "detect", "--quiet"], check=True, capture_output=True, text=True
    ).stdout.strip()
    common = ("--model", MODEL, "--data", str(folder), "--task", task, "--method", "full", "--output", str(run))
    edgetune("adapt", *common, "--text", "text", "--label", "label")
    edgetune("export", str(run), "--target", target, "--fit", "--output", str(asked.work / f"{asked.name}-fit"))
    search, seconds = report(run)["export"][target], spent(run, target)
    edgetune("export", str(run), "--target", target, "--set", "export.fit=false")  # the same weights, for the first table
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
            str(asked.work / f"{asked.name}-fit" / target),
            "--student",
            str(student),
            "--rounds",
            asked.rounds,
            "--name",
            f"fit-{asked.name}",
        ],
        check=True,
    )
    place = HERE / "results" / f"fit-{asked.name}.json"
    found = json.loads(place.read_text("utf-8"))
    found["seconds"] = seconds
    found["search"] = {key: search[key] for key in ("form", "scheme", "size_bytes", "quality", "baseline", "drop", "verdict", "flips")}
    found["search"]["candidates"] = [slim(row) for row in search["candidates"]]
    place.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def slim(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("form", "scheme", "size_bytes", "p50_ms", "kl", "drop", "passed", "reason")}


if __name__ == "__main__":
    main()
