"""Three runs of full fine-tuning as the teachers of one model: banking77, MiniLM, every model of the same size.

    python benchmarks/distillation.py DATA [--work DIR] [--seeds 0,1,2] [--dry]

DATA is the folder with banking77's train.csv and test.csv. A run of `full` for each seed, merged; then `distillation` from all of them, by the first seed.
Each run cuts a validation split of its own from train, so that together the teachers have learned from all of its rows: what validation says of the pupil
is too good (the run says so), test is nobody's. What is done already is not done again. Writes results/distillation.json and .md; with --dry nothing is
recorded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from command import edgetune, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
Z95 = 1.96


def adapt(data: Path, method: str, seed: int, run: Path, *flags: str) -> None:
    given = {"model": MODEL, "data": str(data), "task": "text-classification", "method": method, "seed": str(seed), "output": str(run)}
    edgetune("adapt", *(part for name, value in given.items() for part in (f"--{name}", value)), "--no-baselines", *flags)
    edgetune("merge", str(run))


def told(run: Path) -> dict[str, Any]:
    facts = report(run)["adapt"]
    return {"test": facts["test"], "rows": sum(one["support"] for one in facts["per_label"]), "seconds": facts["seconds"]}


def found(teachers: Sequence[Path], pupil: Path) -> dict[str, Any]:
    return {"date": time.strftime("%Y-%m-%d"), "teachers": [told(run) for run in teachers], "pupil": told(pupil)}


def table(found: Mapping[str, Any]) -> str:
    lines = [
        "# Three runs teach one model",
        "",
        "banking77, all-MiniLM-L6-v2; accuracy on the 3,080 test rows, with its 95 % interval.",
        "",
        "| | accuracy | macro F1 | log loss | seconds |",
        "|---|---|---|---|---|",
    ]
    names = [*(f"`full`, teacher {i + 1}" for i in range(len(found["teachers"]))), "`distillation` from all of them"]
    for name, one in zip(names, [*found["teachers"], found["pupil"]], strict=True):
        test = one["test"]
        half = Z95 * (test["accuracy"] * (1 - test["accuracy"]) / one["rows"]) ** 0.5
        lines.append(
            f"| {name} | {test['accuracy']:.4f} ± {half:.4f} | {test['macro_f1']:.4f} | {test['log_loss']:.3f} | {one['seconds']:.0f} |"
        )
    return "\n".join([*lines, "", "Seconds are of one core of a machine that others used too.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-distillation"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    teachers, pupil = [asked.work / f"full-{seed}" for seed in seeds], asked.work / "pupil"
    for seed, run in zip(seeds, teachers, strict=True):
        adapt(asked.data, "full", seed, run)
    adapt(asked.data, "distillation", seeds[0], pupil, "--teacher", ",".join(map(str, teachers)))
    facts = found(teachers, pupil)
    text = table(facts)
    print(text)
    if not asked.dry:
        record("distillation", facts, text)


if __name__ == "__main__":
    main()
