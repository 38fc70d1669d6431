"""New labels from four rows each: MiniLM as it is, and starts that learned from other labels of banking77 (Reptile, MAML, and plain training).

    python benchmarks/meta.py DATA [--work DIR] [--samples 0,1,2,3,4] [--labels 20] [--shots 4] [--methods linear-probe] [--steps 80] [--set KEY=VALUE]... [--dry]

DATA is the folder with the data sets banking77 (train.csv, test.csv) and snips (a folder an intent). Of banking77's labels in alphabetical order every
fourth is left out until `--labels` are: no start has seen them, nor any intent of snips. Each start is made once, by `adapt` on the rows of the other
labels; then, for each sample, `--shots` rows a label of the unseen ones are drawn, the same for every start, and `adapt --from` learns them. Every
command is the command line that a user types, as a process of its own; what is done is not done again.

Differences are paired over the samples, with a 95 % interval of the mean (Student's t): draws of rows, not of labels or of starts. Writes
results/meta.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sets
from command import edgetune, interval, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
AS_IT_IS = "MiniLM as it is"
STARTS = {"reptile": "reptile", "maml": "maml", "few-shot on the other labels": "few-shot"}  # name -> method that makes it
TEST, VALIDATION = 25, 4  # rows of an unseen label to test with, and to choose the epoch

Rows = list[tuple[str, str]]


def banking77(data: Path, unseen: int) -> tuple[Rows, dict[str, Rows]]:
    """(rows of the labels to learn from, {split: rows of the others})."""
    found: dict[str, Rows] = {}
    for split in ("train", "test"):
        found[split] = list(sets.banking77(data / "banking77", split))
    labels = sorted({label for _, label in found["train"]})
    held = set(labels[::4][:unseen])
    return [row for row in found["train"] if row[1] not in held], {
        split: [row for row in rows if row[1] in held] for split, rows in found.items()
    }


def sample(rows: Mapping[str, Rows], folder: Path, shots: int, seed: int) -> None:
    """`shots` rows of each label to learn from and VALIDATION to choose, drawn by the seed; TEST to test, the same for every seed."""
    splits: dict[str, Rows] = {"train": [], "validation": [], "test": []}
    for split, draw in (("train", seed), ("test", 0)):
        own: dict[str, list[str]] = defaultdict(list)
        for text, label in dict.fromkeys(rows[split]):
            own[label].append(text)
        for label, texts in sorted(own.items()):
            random.Random(f"{draw}:{label}").shuffle(texts)
            if split == "test":
                splits["test"] += [(text, label) for text in texts[:TEST]]
            else:
                splits["train"] += [(text, label) for text in texts[:shots]]
                splits["validation"] += [(text, label) for text in texts[shots : shots + VALIDATION]]
    tested = {text for text, _ in splits["test"]}
    for split, part in splits.items():
        sets.write(folder / f"{split}.csv", [row for row in part if split == "test" or row[0] not in tested])


def learn(work: Path, name: str, data: Path, start: Sequence[str], method: str, seed: int, settings: Sequence[str]) -> float:
    run = work / name
    flags = ("--data", str(data), "--task", "text-classification", "--method", method, "--seed", str(seed), "--output", str(run))
    edgetune("adapt", *start, *flags, *settings)
    return float(report(run)["adapt"]["test"]["accuracy"])


def table(found: Mapping[str, Any]) -> str:
    lines = [
        f"# {found['shots']} rows a label of labels that no start has seen",
        "",
        f"all-MiniLM-L6-v2; starts from banking77's other {found['learned']['labels']} labels ({found['learned']['rows']:,} rows); test accuracy, mean over {len(found['samples'])} samples of rows,",
        "and the paired difference from MiniLM as it is, in points with its 95 % interval (Student's t over the samples).",
        "",
        "| unseen labels | method that learns them | start | test accuracy | difference |",
        "|---|---|---|---|---|",
    ]
    for data, methods in found["results"].items():
        for method, starts in methods.items():
            for start, values in starts.items():
                mean, low, high = interval([100 * (a - b) for a, b in zip(values, starts[AS_IT_IS], strict=True)])
                said = "" if start == AS_IT_IS else f"{mean:+.1f} ({low:+.1f} .. {high:+.1f})"
                lines.append(f"| {data} | {method} | {start} | {statistics.mean(values):.4f} | {said} |")
    lines += ["", "Seconds to make a start: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in found["seconds"].items()) + "."]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-meta"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--samples", default="0,1,2,3,4")
    parser.add_argument("--labels", type=int, default=20, help="of banking77, that are unseen")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--rows", type=int, default=0, help="of banking77's other labels, to make the starts from (0: all)")
    parser.add_argument("--starts", default=",".join(STARTS))
    parser.add_argument("--methods", default="linear-probe", help="that learn the unseen labels; few-shot takes several times as long")
    parser.add_argument("--steps", type=int, default=80, help="optimizer steps that make a start, at most (0: no limit)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of the runs that make the starts")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    plain = ["--set", "adapt.baselines=false"]
    settings = [part for setting in (f"adapt.max_steps={asked.steps}", *asked.settings) for part in ("--set", setting)]
    seen, unseen = banking77(asked.data, asked.labels)
    random.Random(0).shuffle(seen)
    sets.write(asked.work / "seen.csv", seen[: asked.rows or None])
    made: dict[str, list[str]] = {AS_IT_IS: ["--model", asked.model]}
    seconds = {}
    for name in asked.starts.split(","):
        run = asked.work / f"start-{STARTS[name]}"
        begun = ("--model", asked.model, "--data", str(asked.work / "seen.csv"), "--task", "text-classification", "--method", STARTS[name])
        edgetune("adapt", *begun, "--output", str(run), *plain, *settings)
        edgetune("merge", str(run))
        made[name], seconds[name] = ["--from", str(run)], report(run)["adapt"]["seconds"]
    samples = [int(one) for one in asked.samples.split(",")]
    results: dict[str, Any] = {}
    for data, rows in (
        ("snips", {split: list(sets.snips(asked.data / "snips", split)) for split in ("train", "test")}),
        ("banking77", unseen),
    ):
        for seed in samples:
            sample(rows, asked.work / data / str(seed), asked.shots, seed)
        results[data] = {
            method: {
                name: [
                    learn(asked.work, f"{data}-{seed}-{method}-{number}", asked.work / data / str(seed), start, method, seed, plain)
                    for seed in samples
                ]
                for number, (name, start) in enumerate(made.items())
            }
            for method in asked.methods.split(",")
        }
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "shots": asked.shots,
        "samples": samples,
        "settings": [f"adapt.max_steps={asked.steps}", *asked.settings],
        "learned": {"labels": len({label for _, label in seen}), "rows": len(seen[: asked.rows or None])},
        "seconds": seconds,
        "results": results,
    }
    text = table(found)
    print(text)
    if not asked.dry:
        record("meta", found, text)


if __name__ == "__main__":
    main()
