"""Zero-shot by what labels mean: banking77 and the intents of snips, beside chance and the same base with 8 rows a label.

    python benchmarks/zero_shot.py DATA [--work DIR] [--data banking77,snips] [--rows 0] [--dry]

DATA is the folder with banking77/ and snips/. `zero-shot` learns from no row; `linear-probe` with 8 rows a label is what a few labels are worth (samples of
seeds 0, 1, 2). Nothing is trained by steps, so a run is the time to read its rows once; `--rows` cuts the test rows for a quick look.
Writes results/zero-shot.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sets
from command import edgetune, record, report
from scipy.stats import binomtest

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WAYS: dict[str, tuple[str, ...]] = {
    "zero-shot": ("--method", "zero-shot"),
    **{
        f"linear-probe, 8 rows a label, sample {seed}": ("--method", "linear-probe", "--shots", "8", "--seed", str(seed))
        for seed in range(3)
    },
}


def snips(data: Path, split: str) -> Iterable[sets.Row]:
    """The intents; their names are words run together, so they are taken apart."""
    for text, intent in sets.snips(data, split):
        yield text, "".join(f" {c.lower()}" if c.isupper() else c for c in intent).strip().replace(" ", "_")


SETS = {"banking77": sets.banking77, "snips": snips}


def write(name: str, data: Path, out: Path, rows: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    for split in ("train", "test"):
        found = list(dict.fromkeys(SETS[name](data / name, split)))
        step = max(1, len(found) // rows) if rows and split == "test" else 1
        sets.write(out / f"{split}.csv", found[::step])


def run(data: Path, out: Path, flags: Iterable[str]) -> dict[str, Any]:
    given = ("--model", MODEL, "--data", str(data), "--task", "text-classification", "--output", str(out), "--no-baselines")
    seconds = edgetune("adapt", *given, *flags)
    facts = report(out)
    return {"seconds": seconds, "rows": facts["prepare"]["rows"], "labels": len(facts["prepare"]["labels"]), "test": facts["adapt"]["test"]}


def interval(accuracy: float, rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    found = binomtest(round(accuracy * rows), rows).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def table(found: Mapping[str, Any]) -> str:
    lines = ["# Zero-shot by the names of labels", "", f"{MODEL.rpartition('/')[2]}, frozen; test accuracy.", ""]
    lines += ["| data | labels | chance | | accuracy | 95 % interval | macro F1 | log loss |", "|---|---|---|---|---|---|---|---|"]
    for name, ways in found["sets"].items():
        for way, one in ways.items():
            test, (low, high) = one["test"], interval(one["test"]["accuracy"], one["rows"]["test"])
            lines.append(
                f"| {name} | {one['labels']} | {1 / one['labels']:.3f} | {way} | {test['accuracy']:.4f} | {low:.3f} .. {high:.3f} "
                f"| {test['macro_f1']:.4f} | {test['log_loss']:.2f} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-zero-shot"))
    parser.add_argument("--data", default=",".join(SETS))
    parser.add_argument("--rows", type=int, default=0, help="test rows (0: all)")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "rows": asked.rows, "sets": {}}
    for name in asked.data.split(","):
        write(name, asked.folder, asked.work / name, asked.rows)
        found["sets"][name] = {
            way: run(asked.work / name, asked.work / f"{name}-{number}", flags) for number, (way, flags) in enumerate(WAYS.items())
        }
    text = table(found)
    print(text)
    if not asked.dry:
        record("zero-shot", found, text)


if __name__ == "__main__":
    main()
