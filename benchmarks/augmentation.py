"""Augmentation at a few rows a label, on clean test rows and on noisy ones: banking77, `full`, `few-shot` and `linear-probe`.

    python benchmarks/augmentation.py DATA [--work DIR] [--shots 8] [--samples 3] [--methods full,few-shot] [--labels 77] [--steps 0]
                                      [--test 0] [--more] [--set KEY=VALUE]... [--dry]

DATA is the folder with banking77's train.csv and test.csv. Sample i draws its rows with seed i; every way of a method learns from the same
rows and is scored on the same test rows, clean and with typing errors, so that the differences are paired. `--test N` scores the first N test
rows of each label, `--labels N` keeps every so many of the labels, `--steps N` stops each training after N steps (for a quick look,
and for the same budget). `--more` measures word-dropout, texts that a
language model writes, and mixup too. Each command is the command line that a user types, and a run that is
finished is not done again. Writes results/augmentation.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sets
from command import edgetune, interval, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NOISE = "typos"
WAYS: dict[str, tuple[str, ...]] = {  # what is learned from beside the drawn rows: flags
    "nothing": (),
    "typos": ("--augment", "typos", "--augment-copies", "4"),
}
MORE: dict[str, tuple[str, ...]] = {
    "typos, word-dropout": ("--augment", "typos,word-dropout", "--augment-copies", "2"),
    "generation": ("--augment", "generation", "--augment-generator", "HuggingFaceTB/SmolLM2-135M-Instruct"),
}
MIXED = {"full": {"typos, mixup": ("--augment", "typos,mixup", "--augment-copies", "4")}}  # of single methods
ASKED = "at least 2 points more on the noisy test than without"


def write(data: Path, out: Path, labels: int, test: int) -> None:
    """`data` with some of the labels, and some of the test rows, as out/train.csv and out/test.csv."""
    rows = {split: list(sets.banking77(data, split)) for split in ("train", "test")}
    known = sorted({label for _, label in rows["train"]})
    kept = set(known[:: len(known) // labels][:labels] if labels else known)
    for split, most in (("train", 0), ("test", test)):
        sets.write(out / f"{split}.csv", sets.first(rows[split], kept, most))


def one(data: Path, run: Path, method: str, seed: int, shots: int, flags: Sequence[str]) -> dict[str, Any]:
    """A run: its metrics on the clean test rows and on the noisy ones."""
    given = ("--model", MODEL, "--data", str(data), "--task", "text-classification", "--method", method, "--seed", str(seed))
    measured = ("--shots", str(shots), "--augment-noisy-test", NOISE, "--set", "adapt.baselines=false", "--output", str(run))
    edgetune("adapt", *given, *measured, *flags)
    found = report(run)
    made = found.get("augment", {}).get("rows", {})
    facts = found["adapt"]
    return {
        "seed": seed,
        "seconds": facts["seconds"],
        "steps": facts["steps"],
        "made": made,
        "clean": facts["test"],
        "noisy": facts["noisy_test"],
    }


def ways(method: str, more: bool) -> dict[str, tuple[str, ...]]:
    """Those that are compared."""
    return {**WAYS, **MORE, **MIXED.get(method, {})} if more else WAYS


def gain(runs: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]], part: str) -> str:
    """How many points more than `plain`, the mean over the samples, with its 95 % interval."""
    mean, low, high = interval([100 * (accuracy(a, part) - accuracy(b, part)) for a, b in zip(runs, plain, strict=True)])
    return f"{mean:+.1f}" + (f" ({low:+.1f} .. {high:+.1f})" if len(runs) > 1 else "")


def accuracy(run: Mapping[str, Any], part: str) -> float:
    found: float = run["clean"]["accuracy"] if part == "clean" else run["noisy"]["metrics"]["accuracy"]
    return found


def table(found: Mapping[str, Any]) -> str:
    """The result as Markdown: a line a method and way, means over the samples."""
    lines = [
        f"# banking77, {found['shots']} rows a label: learning from altered copies",
        "",
        f"all-MiniLM-L6-v2, {found['labels']} labels, {found['samples']} samples, test accuracy; noisy: the same test rows with one or two typing errors."
        f" Gains in points with their 95 % interval over the paired samples. Asked: {ASKED}.",
        "",
        "| method | learned from too | rows | steps | clean | noisy | gain, clean | gain, noisy | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, compared in found["methods"].items():
        for way, runs in compared.items():
            mean = {part: statistics.mean(accuracy(run, part) for run in runs) for part in ("clean", "noisy")}
            told = ["" if way == "nothing" else gain(runs, compared["nothing"], part) for part in ("clean", "noisy")]
            made = statistics.mean(sum(run["made"].values()) for run in runs)
            steps, seconds = (statistics.mean(run[part] for run in runs) for part in ("steps", "seconds"))
            cells = (method, way, f"{made:.0f}", f"{steps:.0f}", f"{mean['clean']:.4f}", f"{mean['noisy']:.4f}", *told, f"{seconds:.0f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-augmentation"))
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--methods", default="linear-probe,few-shot,full")
    parser.add_argument("--labels", type=int, default=0, help="of all (0: every one)")
    parser.add_argument("--test", type=int, default=0, help="test rows of a label (0: every one)")
    parser.add_argument("--steps", type=int, default=0, help="of each training (0: no limit)")
    parser.add_argument("--more", action="store_true", help="word-dropout and mixup too")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    data = asked.work / "data"
    write(asked.data, data, asked.labels, asked.test)
    settings = [part for setting in (*asked.settings, f"adapt.max_steps={asked.steps}") for part in ("--set", setting)]
    methods = asked.methods.split(",")
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        **{"shots": asked.shots, "samples": asked.samples, "settings": [*asked.settings, f"adapt.max_steps={asked.steps}"]},
        "labels": len({label for _, label in csv.reader((data / "train.csv").open(encoding="utf-8", newline=""))} - {"label"}),
        "methods": {method: {way: [] for way in ways(method, asked.more)} for method in methods},
    }
    for sample in range(asked.samples):  # one sample after the other, so that what is there after a stop can be compared
        for method, runs in found["methods"].items():
            for number, (way, flags) in enumerate(ways(method, asked.more).items()):
                runs[way].append(one(data, asked.work / f"{method}-{number}-{sample}", method, sample, asked.shots, [*flags, *settings]))
    text = table(found)
    print(text)
    if not asked.dry:
        record("augmentation", found, text)


if __name__ == "__main__":
    main()
