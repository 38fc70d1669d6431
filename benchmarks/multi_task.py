"""One model for two tasks beside a model for each: the intents of banking77, and those of snips from a tenth of the rows.

    python benchmarks/multi_task.py DATA [--work DIR] [--seeds 0,1,2] [--most 30] [--few 10] [--test 13] [--dry]

DATA is the folder with banking77/ and snips/. `--most` rows of each label of banking77 and `--few` of each of snips (7 labels) are learned from;
`--test` rows of each label of banking77, and all of snips, are the test. Every way has the defaults of `full`; `together` reads rows as often as they
are, `together, T = 3` those of snips more often. Intervals are Student's over the seeds, of differences to the model of that task alone.
Writes results/multi-task.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sets
from command import edgetune, interval, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SETS = {"banking77": sets.banking77, "snips": sets.snips}
TOGETHER: dict[str, tuple[str, ...]] = {"together": (), "together, T = 3": ("--sampling-temperature", "3")}


def write(folder: Path, out: Path, name: str, most: Mapping[str, int]) -> None:
    for split in ("train", "test"):
        rows = list(dict.fromkeys(SETS[name](folder / name, split)))
        sets.write(out / name / f"{split}.csv", sets.first(rows, {label for _, label in rows}, most[split]))


def adapt(data: Path, task: str, run: Path, seed: int, flags: Sequence[str]) -> dict[str, Any]:
    given = {"model": MODEL, "data": str(data), "task": task, "method": "full", "seed": str(seed), "output": str(run)}
    seconds = edgetune("adapt", *(part for name, value in given.items() for part in (f"--{name}", value)), "--no-baselines", *flags)
    facts = report(run)
    return {"seconds": seconds, "rows": facts["prepare"]["rows"], "test": facts["adapt"]["test"]}


def export(run: Path) -> dict[str, Any]:
    edgetune("export", str(run), "--target", "x86_64-vnni")
    facts = report(run)["export"]["x86_64-vnni"]
    return {name: facts[name] for name in ("scheme", "size_bytes", "verdict", "test", "test_float")}


def table(found: Mapping[str, Any]) -> str:
    seeds = found["seeds"]
    lines = [
        "# One model for two tasks, beside one each",
        "",
        f"Test accuracy, mean of {len(seeds)} seeds; beside it the difference to",
        "",
    ]
    lines[-2] = f"{lines[-2]} the model of that task alone, with its 95 % interval."
    lines += [f"| | {' | '.join(f'{name} | difference' for name in SETS)} | seconds |", "|---|" + "---|---|" * len(SETS) + "---|"]
    alone = {name: [one["test"]["accuracy"] for one in found["runs"][name]] for name in SETS}
    cells = [f"{interval(alone[name])[0]:.4f} | " for name in SETS]
    lines.append(
        f"| one each | {' | '.join(cells)} | {sum(one['seconds'] for name in SETS for one in found['runs'][name]) / len(seeds):.0f} |"
    )
    for way in TOGETHER:
        runs, cells = found["runs"][way], []
        for name in SETS:
            values = [one["test"][f"{name}_accuracy"] for one in runs]
            mean, low, high = interval([value - before for value, before in zip(values, alone[name], strict=True)])
            cells.append(f"{interval(values)[0]:.4f} | {mean:+.4f} ({low:+.4f} .. {high:+.4f})")
        lines.append(f"| {way} | {' | '.join(cells)} | {sum(one['seconds'] for one in runs) / len(seeds):.0f} |")
    int8, rows = found["int8"], {name: found["runs"][name][0]["rows"]["train"] for name in SETS}
    said = ", ".join(f"{name} {int8['test'][f'{name}_accuracy']:.4f}" for name in SETS)
    lines += [
        "",
        f"int8 of the first run together: {int8['size_bytes'] / 1e6:.1f} MB, {said}; {int8['verdict']}.",
        "",
        f"Learned from {rows['banking77']:,} rows of banking77 and {rows['snips']:,} of snips.",
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DATA")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-multi-task"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--most", type=int, default=30, help="rows of each label of banking77 (0: all)")
    parser.add_argument("--few", type=int, default=10, help="rows of each label of snips (0: all)")
    parser.add_argument("--test", type=int, default=13, help="test rows of each label of banking77 (0: all)")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    data, seeds = asked.work / "data", [int(seed) for seed in asked.seeds.split(",")]
    shutil.rmtree(data, ignore_errors=True)
    write(asked.folder, data, "banking77", {"train": asked.most, "test": asked.test})
    write(asked.folder, data, "snips", {"train": asked.few, "test": 0})
    runs = {name: [adapt(data / name, "text-classification", asked.work / f"{name}-{seed}", seed, ()) for seed in seeds] for name in SETS}
    for number, (way, flags) in enumerate(TOGETHER.items()):
        runs[way] = [adapt(data, "multi-task", asked.work / f"together{number}-{seed}", seed, flags) for seed in seeds]
    found = {"date": time.strftime("%Y-%m-%d"), "seeds": seeds, "runs": runs, "int8": export(asked.work / f"together0-{seeds[0]}")}
    text = table(found)
    print(text)
    if not asked.dry:
        record("multi-task", found, text)


if __name__ == "__main__":
    main()
