"""A few rows a label in numbers: few-shot, linear-probe, full fine-tuning and the setfit library on the same samples of banking77.

    python benchmarks/few_shot.py DATA [--work DIR] [--shots 8] [--samples 0,1,..,9] [--setfit PYTHON] [--setfit-samples 0,1,2] [--tests 1000]
        [--dry]

DATA is the folder of banking77. Each sample draws `--shots` rows of each label from train, by its number; two other rows of each label are
validation, and test is `--tests` rows of the test set, the same for all. PYTHON has setfit installed; its part reads the rows that ours has
drawn. Each command is the command line that a user types, as a process of its own; what is done already is not done again. Intervals are
Student's over the samples, of differences to few-shot on the same sample. Writes results/few-shot.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sets
from command import edgetune, interval, record, report

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
METHODS = ("few-shot", "linear-probe", "full")
VALIDATION = 2  # rows of each label
Row = tuple[str, str]


def write(data: Path, out: Path, tests: int) -> None:
    """train.csv, validation.csv and test.csv, which edgetune reads as they are."""
    chance = random.Random("few-shot")
    train, test = (list(sets.banking77(data, split)) for split in ("train", "test"))
    chance.shuffle(train)
    seen: dict[str, int] = defaultdict(int)
    parts: dict[str, list[sets.Row]] = {"train": [], "validation": [], "test": chance.sample(test, tests)}
    for text, label in train:
        parts["validation" if seen[label] < VALIDATION else "train"].append((text, label))
        seen[label] += 1
    for name, rows in parts.items():
        sets.write(out / f"{name}.csv", rows)


def ours(asked: argparse.Namespace, method: str, sample: int) -> dict[str, Any]:
    run = asked.work / f"{method}-{asked.shots}-{sample}"
    given = {"model": MODEL, "data": str(asked.work / "data"), "task": "text-classification", "method": method, "shots": str(asked.shots)}
    flags = [part for name, value in {**given, "seed": str(sample), "output": str(run)}.items() for part in (f"--{name}", value)]
    edgetune("adapt", *flags, "--set", "adapt.baselines=false")
    facts = report(run)["adapt"]
    return {"sample": sample, "accuracy": facts["test"]["accuracy"], "macro_f1": facts["test"]["macro_f1"], "seconds": facts["seconds"]}


def theirs(asked: argparse.Namespace, sample: int) -> dict[str, Any]:
    """The setfit library on the rows that few-shot has drawn."""
    from sklearn.metrics import accuracy_score, f1_score

    from edgetune import source

    rows = asked.work / f"few-shot-{asked.shots}-{sample}" / "data"
    out = asked.work / f"setfit-{asked.shots}-{sample}.json"
    if not out.exists():
        files = (rows / "train.jsonl", rows / "test.jsonl", out)
        command = [asked.setfit, HERE / "versus" / "setfit_tool.py", source.resolve(MODEL).folder, *files, "--seed", sample]
        subprocess.run([str(part) for part in command], check=True)
    found = json.loads(out.read_text("utf-8"))
    labels = [json.loads(line)["label"] for line in (rows / "test.jsonl").read_text("utf-8").splitlines()]
    scores = {"accuracy": accuracy_score(labels, found["answers"]), "macro_f1": f1_score(labels, found["answers"], average="macro")}
    return {"sample": sample, **scores, **{name: found[name] for name in ("seconds", "version", "batch_size", "iterations")}}


def table(found: Mapping[str, Any]) -> str:
    first = {one["sample"]: one for one in found["ways"]["few-shot"]}
    lines = [
        f"# banking77, {found['shots']} rows a label",
        "",
        f"all-MiniLM-L6-v2, {found['tests']:,} test rows. Accuracy, mean over the samples; differences in points to few-shot on the same samples, with "
        "Student's 95 % interval.",
        "",
        "| | samples | accuracy | macro F1 | difference to few-shot (95 %) | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for way, runs in found["ways"].items():
        means = [f"{statistics.mean(one[name] for one in runs):.4f}" for name in ("accuracy", "macro_f1")]
        mean, low, high = interval([100 * (one["accuracy"] - first[one["sample"]]["accuracy"]) for one in runs])
        span = f"({low:+.1f} .. {high:+.1f})" if len(runs) > 1 else "(one sample)"
        differs = "" if way == "few-shot" else f"{mean:+.1f} {span}"
        seconds = f"{statistics.mean(one['seconds'] for one in runs):.0f}"
        lines.append(f"| {' | '.join([way, str(len(runs)), *means, differs, seconds])} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-few-shot"))
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--samples", default="0,1,2,3,4,5,6,7,8,9")
    parser.add_argument("--setfit", default="", metavar="PYTHON")
    parser.add_argument("--setfit-samples", default="0,1,2")
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    write(asked.data, asked.work / "data", asked.tests)
    by_sample = [{method: ours(asked, method, int(sample)) for method in METHODS} for sample in asked.samples.split(",")]
    ways = {method: [one[method] for one in by_sample] for method in METHODS}
    if asked.setfit:
        ways["setfit library"] = [theirs(asked, int(sample)) for sample in asked.setfit_samples.split(",")]
    found = {"date": time.strftime("%Y-%m-%d"), "shots": asked.shots, "tests": asked.tests, "ways": ways}
    text = table(found)
    print(text)
    if not asked.dry:
        record("few-shot", found, text)


if __name__ == "__main__":
    main()
