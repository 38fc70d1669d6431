"""Zero-shot by what labels mean: banking77 and the intents of snips, beside chance and the same base with 8 rows a label.

    python benchmarks/zero_shot.py DATA [--work DIR] [--data banking77,snips] [--rows 0] [--dry]

DATA is the folder with banking77/ and snips/. `zero-shot` learns from no row; `linear-probe` with 8 rows a label is what a few labels are worth (samples of
seeds 0, 1, 2). Nothing is trained by steps, so a run is the time to read its rows once; `--rows` cuts the test rows for a quick look.
Writes results/zero-shot.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from command import edgetune, report

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WAYS: dict[str, tuple[str, ...]] = {
    "zero-shot": ("--method", "zero-shot"),
    **{
        f"linear-probe, 8 rows a label, sample {seed}": ("--method", "linear-probe", "--shots", "8", "--seed", str(seed))
        for seed in range(3)
    },
}


def banking77(data: Path, split: str) -> Iterable[tuple[str, str]]:
    with (data / "banking77" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        yield from ((row["text"], row["category"]) for row in csv.DictReader(file))


def snips(data: Path, split: str) -> Iterable[tuple[str, str]]:
    """The intents; their names are words run together, so they are taken apart."""
    for folder in sorted(path for path in (data / "snips").iterdir() if path.is_dir()):
        name = f"{'validate' if split == 'test' else 'train'}_{folder.name}.json"
        label = "".join(f" {c.lower()}" if c.isupper() else c for c in folder.name).strip().replace(" ", "_")
        [requests] = json.loads((folder / name).read_text("utf-8", "replace")).values()
        yield from (("".join(piece["text"] for piece in request["data"]).strip(), label) for request in requests)


SETS = {"banking77": banking77, "snips": snips}


def write(name: str, data: Path, out: Path, rows: int) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for split in ("train", "test"):
        found = list(dict.fromkeys(SETS[name](data, split)))
        step = max(1, len(found) // rows) if rows and split == "test" else 1
        with (out / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *found[::step]])


def run(data: Path, out: Path, flags: Iterable[str]) -> dict[str, Any]:
    given = ("--model", MODEL, "--data", str(data), "--task", "text-classification", "--output", str(out), "--no-baselines")
    seconds = edgetune("adapt", *given, *flags)
    facts = report(out)
    return {"seconds": seconds, "rows": facts["prepare"]["rows"], "labels": len(facts["prepare"]["labels"]), "test": facts["adapt"]["test"]}


def interval(accuracy: float, rows: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.96
    middle, half = accuracy + z * z / (2 * rows), z * (accuracy * (1 - accuracy) / rows + z * z / (4 * rows * rows)) ** 0.5
    return (middle - half) / (1 + z * z / rows), (middle + half) / (1 + z * z / rows)


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
        place = HERE / "results" / "zero-shot"
        place.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        place.with_suffix(".md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
