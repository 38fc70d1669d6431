"""A few rows a label where what counts is no topic: reviews of kitchen ware, good or bad, by a language model asked in words and by a sentence encoder.

    python benchmarks/pattern.py DATA [--work DIR] [--domain kitchen] [--shots 8] [--samples 0,1,2] [--tests 200] [--longest 300] [--dry]

DATA is the folder with a folder a domain, each with review_positive and review_negative, a review a line. Reviews of up to `--longest` characters; each
sample draws `--shots` rows of each label by its number, validation (30 rows of each) and test are the same for all. SmolLM2-135M-Instruct is asked by
`verbaliser` and `pattern`, all-MiniLM-L6-v2 learns by the others. Each command is the command line that a user types; what is done already is not done
again. Intervals are Student's over the samples, of differences to `pattern`. Writes results/pattern.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sets
from command import edgetune, interval, record, report

SMOLLM2, MINILM = "HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"
LABELS = ("negative", "positive")
PATTERN = "{text}\nAll in all, the product is {label}"
WORDS = (("positive", "great"), ("positive", "good"), ("negative", "bad"), ("negative", "terrible"))
LEARNED, VALIDATION = 50, 30  # rows of each label that samples are drawn from, and of validation
MAIN = "pattern"
WAYS: dict[str, tuple[str, str]] = {
    MAIN: (SMOLLM2, "pattern"),
    "verbaliser": (SMOLLM2, "verbaliser"),
    **{name: (MINILM, name) for name in ("full", "few-shot", "linear-probe", "zero-shot")},
}
UNTAUGHT = ("verbaliser", "zero-shot")  # one sample says it all: no row is learned from


def write(asked: argparse.Namespace) -> None:
    chance, parts = random.Random("pattern"), {"train": LEARNED, "validation": VALIDATION, "test": asked.tests // len(LABELS)}
    found: dict[str, list[sets.Row]] = {name: [] for name in parts}
    for label in LABELS:
        lines = (asked.data / asked.domain / f"review_{label}").read_text("utf-8").splitlines()
        texts = [text for text in dict.fromkeys(lines) if len(text) <= asked.longest]
        chance.shuffle(texts)
        for name, count in parts.items():
            found[name] += [(texts.pop(), label) for _ in range(count)]
    for name, rows in found.items():
        sets.write(asked.work / "data" / f"{name}.csv", rows)
    (asked.work / "words.csv").write_text("\n".join(["label,description", *map(",".join, WORDS)]) + "\n", "utf-8")


def run(asked: argparse.Namespace, way: str, sample: int) -> dict[str, Any]:
    (model, method), out = WAYS[way], asked.work / f"{way}-{asked.shots}-{sample}"
    given = {"model": model, "data": str(asked.work / "data"), "task": "text-classification", "method": method, "shots": str(asked.shots)}
    given |= {"seed": str(sample), "descriptions": str(asked.work / "words.csv"), "output": str(out)}
    words = ("--set", f"pattern.text={PATTERN}") if model == SMOLLM2 else ()
    edgetune("adapt", *(part for name, value in given.items() for part in (f"--{name}", value)), *words, "--no-baselines")
    facts = report(out)["adapt"]
    return {"sample": sample, "accuracy": facts["test"]["accuracy"], "log_loss": facts["test"]["log_loss"], "seconds": facts["seconds"]}


def table(found: Mapping[str, Any]) -> str:
    first = {one["sample"]: one["accuracy"] for one in found["ways"][MAIN]}
    lines = [
        f"# Reviews of {found['domain']}, good or bad, {found['shots']} rows a label",
        "",
        f"{found['tests']} test rows; samples {', '.join(map(str, first))}. Accuracy, mean over the samples; differences in points to {MAIN}, with "
        "Student's 95 % interval.",
        "",
        "| | base | accuracy | of each sample | difference (95 %) | log loss | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for way, runs in found["ways"].items():
        values = [one["accuracy"] for one in runs]
        of_each = dict(zip(first, values * len(first) if len(values) == 1 else values, strict=False))
        mean, low, high = interval([100 * (of_each[sample] - first[sample]) for sample in first])
        cells = [way, WAYS[way][0].rpartition("/")[2], f"{statistics.mean(values):.4f}", ", ".join(f"{value:.3f}" for value in values)]
        cells.append("" if way == MAIN else f"{mean:+.1f} ({low:+.1f} .. {high:+.1f})")
        cells += [f"{statistics.mean(one['log_loss'] for one in runs):.3f}", f"{statistics.mean(one['seconds'] for one in runs):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-pattern"))
    parser.add_argument("--domain", default="kitchen")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--samples", default="0,1,2")
    parser.add_argument("--tests", type=int, default=200)
    parser.add_argument("--longest", type=int, default=300, help="characters of a review")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    samples = [int(sample) for sample in asked.samples.split(",")]
    write(asked)
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        **{name: getattr(asked, name) for name in ("domain", "shots", "tests", "longest")},
    }
    found["ways"] = {way: [run(asked, way, sample) for sample in (samples[:1] if way in UNTAUGHT else samples)] for way in WAYS}
    text = table(found)
    print(text)
    if not asked.dry:
        record("pattern", found, text)


if __name__ == "__main__":
    main()
