"""The whole search, in numbers: a classifier is adapted with the defaults, `edgetune export --fit` makes it small, nothing is set by hand.

    python benchmarks/fit.py NAME DATA --envs DIR [--work DIR] [--rounds 10] [--set KEY=VALUE]... [--suffix NAME]

NAME is banking77, snips (its intents) or semeval2010_task8 (its relations); DATA its folder. Measured by versus/versus.py in one run and in turns
at one thread: the searched bundle, its student through plain int8, and plain int8 of the full model. `--suffix` goes with `--set`: one point of the
search, of a copy of the adapted run, is measured by itself, such as three layers by `--set compress.layers=3 --set compress.feed_forward=0`.
Writes results/fit-NAME.json and .md, with the wall time of each command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
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


def spent(run: Path, target: str, forms: Collection[str]) -> dict[str, float]:
    """Seconds of each stage, as the run noted them; `search`: teachers, students and graphs of these forms, and everything up to the verified bundle."""
    stages = json.loads((run / "manifest.json").read_text("utf-8"))["stages"]
    found = {name: round(entry["seconds"], 1) for name, entry in stages.items()}
    parts = [f"export:{target}"]
    for name in found:
        stage, _, made = name.partition(":")
        form = made if stage == "compress" else "-".join(made.split("-")[2:]) or "whole"  # graph:opset20-ir10-FORM
        if stage in ("ensemble", "ensemble-merge", "teach") or (stage in ("compress", "graph") and form in forms):
            parts.append(name)
    return {**found, "search": round(sum(found[name] for name in parts), 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=DATA)
    parser.add_argument("data", type=Path)
    parser.add_argument("--envs", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-fit"))
    parser.add_argument("--rounds", default="10")
    parser.add_argument("--suffix", default="")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of the search, such as compress.layers=3"
    )
    asked = parser.parse_args()
    task, rows = DATA[asked.name]
    name = f"{asked.name}-{asked.suffix}" if asked.suffix else asked.name
    adapted, run, bundles, folder = (asked.work / place for place in (asked.name, name, f"{name}-fit", f"{asked.name}-data"))
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        sets.write(folder / f"{part}.csv", rows(asked.data, part))
    target = subprocess.run(
        [sys.executable, "-m", "edgetune", "targets", "detect", "--quiet"], check=True, capture_output=True, text=True
    ).stdout.strip()
    common = ("--model", MODEL, "--data", str(folder), "--task", task, "--method", "full", "--text", "text", "--label", "label")
    edgetune("adapt", *common, "--output", str(adapted))
    if asked.suffix and not run.exists():
        shutil.copytree(adapted, run)
    settings = [part for setting in asked.settings for part in ("--set", setting)]
    edgetune("export", str(run), "--target", target, "--fit", *settings, "--output", str(bundles))
    search = report(run)["export"][target]
    seconds = spent(run, target, {row["form"] for row in search["candidates"]})
    edgetune("export", str(adapted), "--target", target, "--set", "export.fit=false")  # the same weights, for the first table
    form = search["form"]
    student = run / "merged" if form == "whole" else run / "compressed" / form
    subprocess.run(
        [
            sys.executable,
            str(HERE / "versus" / "versus.py"),
            str(adapted),
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
    found["seconds"], found["settings"] = seconds, asked.settings
    found["search"] = {key: search[key] for key in ("form", "scheme", "size_bytes", "quality", "baseline", "drop", "verdict", "flips")}
    found["search"]["candidates"] = [slim(row) for row in search["candidates"]]
    place.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def slim(row: dict[str, Any]) -> dict[str, Any]:
    return {key: row[key] for key in ("form", "scheme", "size_bytes", "p50_ms", "kl", "drop", "passed", "reason")}


if __name__ == "__main__":
    main()
