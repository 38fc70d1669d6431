"""How long full fine-tuning takes, beside a plain transformers.Trainer: banking77, MiniLM, four epochs, the same rows and numbers.

    python benchmarks/trainer.py DATA [--work DIR] [--rounds 1] [--steps 0] [--fast] [--dry]

DATA is the folder with banking77's train.csv and test.csv. In turns, each a process of its own that loads, reads, trains with a look at validation
after each epoch, and scores test: `edgetune adapt`; the Trainer at its defaults (fp32); the Trainer in bf16 with batches of like length. `--steps N`
stops each after N steps; `--fast` leaves the Trainer at its defaults out and keeps what was recorded of it. Run it on a machine that does nothing else: what counts is the ratio of the times. Writes results/trainer.json and .md;
with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sets
from command import edgetune, record, report

from edgetune import source

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
TOOL = Path(__file__).parent / "versus" / "trainer_tool.py"
DEFAULTS = "Trainer"
WAYS = {DEFAULTS: (), "Trainer, bf16, by length": ("--bf16", "--grouped")}
OURS = "edgetune"
RECORDED = Path(__file__).parent / "results" / "trainer.json"


def ours(data: Path, run: Path, steps: int) -> dict[str, Any]:
    shutil.rmtree(run, ignore_errors=True)
    flags = ("--epochs", "4", "--early-stopping", "0", "--no-baselines", *(("--max-steps", str(steps)) if steps else ()))
    seconds = edgetune(
        "adapt", "--model", MODEL, "--data", str(data), "--task", "text-classification", "--method", "full", *flags, "--output", str(run)
    )
    facts = report(run)["adapt"]
    return {"seconds": seconds, "steps": facts["steps"], "accuracy": facts["test"]["accuracy"], "settings": facts["settings"]}


def theirs(run: Path, out: Path, settings: Mapping[str, Any], flags: tuple[str, ...], steps: int) -> dict[str, Any]:
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, str(TOOL), str(run), str(source.resolve(MODEL).folder), str(out), json.dumps(settings), *flags]
    started = time.monotonic()
    said = subprocess.run([*command, "--steps", str(steps)], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"seconds": round(time.monotonic() - started, 1), **json.loads(said.splitlines()[-1])}


def table(found: Mapping[str, Any]) -> str:
    lines = [
        "# Full fine-tuning, beside transformers.Trainer",
        "",
        "banking77, MiniLM, the same rows and numbers; medians of whole processes.",
        "",
    ]
    lines += ["| | seconds | times as long | test accuracy | steps |", "|---|---|---|---|---|"]
    base = statistics.median(one["seconds"] for one in found["rounds"][OURS])
    for way, runs in found["rounds"].items():
        seconds = statistics.median(one["seconds"] for one in runs)
        lines.append(f"| {way} | {seconds:.0f} | {seconds / base:.2f} | {runs[0]['accuracy']:.4f} | {runs[0]['steps']} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-trainer"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="without the Trainer at its defaults, which takes a quarter of an hour")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    data, run = asked.work / "data", asked.work / "run"
    for split in ("train", "test"):
        sets.write(data / f"{split}.csv", sets.banking77(asked.folder, split))
    rounds: dict[str, list[dict[str, Any]]] = {OURS: [], **{way: [] for way in WAYS}}
    if asked.fast:
        rounds[DEFAULTS] = json.loads(RECORDED.read_text("utf-8"))["rounds"][DEFAULTS]
    for _ in range(asked.rounds):
        rounds[OURS].append(ours(data, run, asked.steps))
        for way, flags in WAYS.items():
            if way == DEFAULTS and asked.fast:
                continue
            rounds[way].append(theirs(run, asked.work / "trainer", rounds[OURS][-1]["settings"], flags, asked.steps))
    found = {"date": time.strftime("%Y-%m-%d"), "rounds": rounds}
    text = table(found)
    print(text)
    if not asked.dry:
        record("trainer", found, text)


if __name__ == "__main__":
    main()
