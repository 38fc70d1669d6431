"""Forgetting in numbers: banking77's first labels, then the others with `adapt --continue`, by replay, elastic weights, or neither.

    python benchmarks/continual.py DATA [--work DIR] [--first 60] [--seeds 0,1,2] [--labels 77] [--rows 0] [--set KEY=VALUE]... [--dry]

DATA is the folder with banking77's train.csv and test.csv. The labels are taken in alphabetical order, `--first` of `--labels` of them first
(`--rows`: at most so many rows of a label to learn from, for a quick look). Each command is the command line that a user types, as a process of
its own. "all at once" learns every label in one run: what is lost for coming later. Writes results/continual.json and .md; with --dry
nothing is recorded. What is done already is not done again: the seconds are those of the adapt stage, as its run noted them.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sets
from command import edgetune, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WAYS: dict[str, tuple[str, ...]] = {  # how the second step is made: its flags
    "nothing": ("--replay", "0"),
    "elastic weights, 1e4": ("--replay", "0", "--ewc", "1e4"),
    "elastic weights, 1e6": ("--replay", "0", "--ewc", "1e6"),
    "replay 0.3": ("--replay", "0.3"),
    "replay 1": ("--replay", "1"),
    "replay as many of each label as of a new one (default)": (),
}
ASKED = "an old-task drop of at most 2 points with replay"


def write(data: Path, out: Path, labels: Sequence[str], rows: int) -> None:
    """The rows of `labels` as out/train.csv and out/test.csv."""
    shutil.rmtree(out, ignore_errors=True)
    for split, most in (("train", rows), ("test", 0)):
        sets.write(out / f"{split}.csv", sets.first(sets.banking77(data, split), labels, most))


def fresh(data: Path, run: Path, seed: int, settings: Sequence[str]) -> dict[str, Any]:
    """A run of MiniLM on `data`, merged."""
    flags = ("--model", MODEL, "--data", str(data), "--task", "text-classification", "--method", "full")
    edgetune("adapt", *flags, "--seed", str(seed), "--output", str(run), *settings)
    edgetune("merge", str(run))
    facts = report(run)["adapt"]
    right = {one["label"]: [round(one["recall"] * one["support"]), one["support"]] for one in facts["per_label"]}
    return {"seed": seed, "seconds": facts["seconds"], "test": facts["test"], "right": right}


def continued(data: Path, old: Path, run: Path, seed: int, flags: Sequence[str]) -> dict[str, Any]:
    edgetune("adapt", "--continue", str(old), "--data", str(data), "--seed", str(seed), "--output", str(run), *flags)
    facts = report(run)
    rows = {"new": facts["prepare"]["rows"]["train"] - facts["prepare"]["earlier"]["rows"]["train"], **facts["prepare"]["earlier"]["rows"]}
    keep = ("before", "after", "new", "difference", "rows")
    return {
        "seed": seed,
        "seconds": facts["adapt"]["seconds"],
        "train": rows,
        **{name: facts["adapt"]["continual"][name] for name in keep},
        "all": facts["adapt"]["test"],
    }


def table(found: Mapping[str, Any]) -> str:
    """The result as Markdown: a line a way, means over the seeds."""
    seeds = [str(one["seed"]) for one in found["first"]]
    lines = [
        f"# {found['labels'][0]} labels of banking77, then {found['labels'][1]} more",
        "",
        f"all-MiniLM-L6-v2, method full, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}; test accuracy, mean over the seeds. Asked: {ASKED}.",
        "",
        "| second step | rows: new + old | old labels before | after | drop, points (95 % interval of each seed) | new labels | all together | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for way, runs in found["ways"].items():
        mean = {part: statistics.mean(one[part]["accuracy"] for one in runs) for part in ("before", "after", "new", "all")}
        drops = [-100 * one["difference"]["value"] for one in runs]
        spans = "; ".join(f"{-100 * one['difference']['ci95'][1]:.1f} .. {-100 * one['difference']['ci95'][0]:.1f}" for one in runs)
        rows = f"{runs[0]['train']['new']:,} + {runs[0]['train']['train']:,}"
        seconds = f"{statistics.mean(one['seconds'] for one in runs):.0f}"
        cells = (way, rows, f"{mean['before']:.4f}", f"{mean['after']:.4f}", f"{statistics.mean(drops):.1f} ({spans})", f"{mean['new']:.4f}", f"{mean['all']:.4f}", seconds)  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    old, new, every = (statistics.mean(share(one["right"], found["first"][0]["right"], part) for one in found["whole"]) for part in PARTS)
    seconds = f"{statistics.mean(one['seconds'] for one in found['whole']):.0f}"
    lines.append(f"| all at once | | | {old:.4f} | | {new:.4f} | {every:.4f} | {seconds} |")
    return "\n".join([*lines, ""])


PARTS = ((True,), (False,), (True, False))  # labels that were first, those that were not, and both


def share(right: Mapping[str, Sequence[int]], first: Mapping[str, Any], part: Sequence[bool]) -> float:
    """Right answers among the test rows of some labels."""
    rows = [counts for label, counts in right.items() if (label in first) in part]
    return sum(good for good, _ in rows) / sum(count for _, count in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-continual"))
    parser.add_argument("--first", type=int, default=60)
    parser.add_argument("--labels", type=int, default=0, help="of all (0: every one)")
    parser.add_argument("--rows", type=int, default=0, help="of a label, to learn from (0: every one)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    labels = sorted({label for _, label in sets.banking77(asked.data, "train")})[: asked.labels or None]
    parts = {"first": labels[: asked.first], "more": labels[asked.first :], "whole": labels}
    for name, own in parts.items():
        write(asked.data, asked.work / name, own, asked.rows)
    settings = [part for setting in (*asked.settings, "adapt.baselines=false") for part in ("--set", setting)]
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "labels": [len(parts["first"]), len(parts["more"])],
        "settings": asked.settings,
    }
    for name in ("first", "whole"):
        found[name] = [fresh(asked.work / name, asked.work / f"{name}-{seed}", seed, settings) for seed in seeds]
    found["ways"] = {
        way: [
            continued(asked.work / "more", asked.work / f"first-{seed}", asked.work / f"way{number}-{seed}", seed, [*flags, *settings])
            for seed in seeds
        ]
        for number, (way, flags) in enumerate(WAYS.items())
    }
    text = table(found)
    print(text)
    if not asked.dry:
        record("continual", found, text)


if __name__ == "__main__":
    main()
