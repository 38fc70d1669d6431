"""Adapters against full fine-tuning on banking77 with all its rows: accuracy, trained weights, bytes of what was trained, time.

    python benchmarks/peft.py DATA [--work DIR] [--ways "full;lora;..."] [--seeds 0] [--shots 0] [--set KEY=VALUE]... [--dry]

DATA is the folder with banking77's train.csv and test.csv. Each run is `edgetune adapt` and `merge` as a user types them; what is finished in
DIR is not done again, so ways may be added one by one. A way is a method, or a method with settings of its own (WAYS). Intervals: of the
accuracy, by the number of test rows (normal approximation); of the difference from full, over seeds where there are several, else as if
the two had been scored on different rows, which is wider than the truth. Writes results/peft.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from command import edgetune, interval, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WAYS: dict[str, tuple[str, ...]] = {  # name -> its flags
    **{name: ("--method", name) for name in ("full", "lora", "dora", "oft", "ia3", "prompt-tuning", "p-tuning", "linear-probe", "head")},
    "lora, rank 64": ("--method", "lora", "--set", "lora.rank=64"),
    "lora+, ratio 8": ("--method", "lora", "--set", "lora.plus_ratio=8"),
    "full, last 3 layers": ("--method", "full", "--set", "adapt.layers=3"),
    "full, layer decay 0.9": ("--method", "full", "--set", "adapt.layer_decay=0.9"),
    "full, gradual unfreezing": ("--method", "full", "--set", "adapt.gradual_unfreezing=true"),
}
FIRST = "full,lora,ia3,linear-probe"  # what is measured unless asked otherwise: about 20 minutes on two cores
ASKED = "lora within 1 point of full"
Z95 = 1.96


def measured(data: Path, run: Path, seed: int, flags: Sequence[str]) -> dict[str, Any]:
    """A run, merged, and what it has to tell."""
    base = ("--model", MODEL, "--data", str(data), "--task", "text-classification", "--seed", str(seed), "--output", str(run))
    edgetune("adapt", *base, *flags)
    edgetune("merge", str(run))
    facts = report(run)["adapt"]
    left = run / ("adapter" if (run / "adapter").is_dir() else "checkpoint")
    return {
        "seed": seed,
        "test": facts["test"],
        "rows": sum(one["support"] for one in facts["per_label"]),
        "trained_weights": facts["trained_weights"],
        "bytes": sum(path.stat().st_size for path in left.rglob("*.safetensors")),
        "steps": facts["steps"],
        "seconds": facts["seconds"],
        "difference_when_merged": report(run)["merge"]["max_logit_difference"],
    }


def error(accuracy: float, rows: int) -> float:
    return float((accuracy * (1 - accuracy) / rows) ** 0.5)


def against(runs: Sequence[Mapping[str, Any]], full: Sequence[Mapping[str, Any]]) -> str:
    """Points over full, with a 95 % interval."""
    pairs = [(a["test"]["accuracy"], b["test"]["accuracy"]) for a, b in zip(runs, full, strict=True)]
    gains = [100 * (a - b) for a, b in pairs]
    mean, low, high = interval(gains)
    if len(gains) == 1:
        half = 100 * Z95 * sum(error(accuracy, one["rows"]) ** 2 for accuracy, one in zip(pairs[0], (runs[0], full[0]), strict=True)) ** 0.5
        low, high = mean - half, mean + half
    return f"{mean:+.1f} ({low:+.1f} .. {high:+.1f})"


def table(found: Mapping[str, Any]) -> str:
    shots = f"{found['shots']} rows a label" if found["shots"] else "all training rows"
    lines = [
        f"banking77, all-MiniLM-L6-v2, {shots}, seeds {', '.join(map(str, found['seeds']))}; defaults of each method; {found['date']}. Asked: {ASKED}.",
        "",
        "| way | test accuracy | points over full | macro F1 | weights trained | MB left | steps | seconds | logits differ when merged |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in found["ways"].items():
        mean = statistics.mean(run["test"]["accuracy"] for run in runs)
        half = Z95 * error(mean, runs[0]["rows"])
        cells = (
            name,
            f"{mean:.4f} ± {half:.4f}",
            against(runs, found["ways"]["full"]) if name != "full" and "full" in found["ways"] else "",
            f"{statistics.mean(run['test']['macro_f1'] for run in runs):.4f}",
            f"{runs[0]['trained_weights']:,}",
            f"{runs[0]['bytes'] / 1e6:.1f}",
            f"{runs[0]['steps']:,}",
            f"{statistics.mean(run['seconds'] for run in runs):.0f}",
            f"{max(run['difference_when_merged'] for run in runs):.0e}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Seconds are of a machine that others used too.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-peft"))
    parser.add_argument("--ways", default=FIRST, help=f"with ; or , between, of: {'; '.join(WAYS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--shots", type=int, default=0, help="rows a label (0: all)")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    names = [name.strip() for name in asked.ways.split(";" if ";" in asked.ways or asked.ways in WAYS else ",")]
    if unknown := [name for name in names if name not in WAYS]:
        parser.error(f"no such way: {'; '.join(unknown)}")
    extra = [f"data.shots={asked.shots}", *asked.settings, "adapt.baselines=false"]
    settings = [part for setting in extra for part in ("--set", setting)]
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "shots": asked.shots,
        "seeds": seeds,
        "settings": asked.settings,
        "ways": {},
    }
    for name in names:
        place = asked.work / f"{name.replace(', ', '-').replace(' ', '-')}-{asked.shots}"
        found["ways"][name] = [measured(asked.data, Path(f"{place}-{seed}"), seed, [*WAYS[name], *settings]) for seed in seeds]
        print(table(found))
    if not asked.dry:
        record("peft", found, table(found))


if __name__ == "__main__":
    main()
