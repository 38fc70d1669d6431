"""From one domain to another in numbers: reviews of books with labels, reviews of kitchen ware without; what target texts gain, or harm.

    python benchmarks/domain.py DATA [--work DIR] [--source books] [--target kitchen] [--rows 1000] [--texts 2000] [--tests 2000]
        [--seeds 0,1,2] [--ways NAME,...] [--epochs 2] [--pretraining-epochs 1] [--length 64] [--set KEY=VALUE]... [--dry]

DATA is the folder with a folder a domain, each with review_positive and review_negative, a review a line. Each seed draws `--rows` labelled source
rows of its own; the source's test rows, the target's (both `--tests`) and its unlabelled `--texts` are the same for all. No text is in two of them. Each
command is the command line that a user types, as a process of its own; what is done already is not done again. Continued pre-training is one
run of fill-mask on the target's unlabelled texts, that every seed starts from. Intervals are Student's over the seeds, of differences to
source-only by the same seed. Writes results/domain.json and .md; with --dry nothing is recorded.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from command import edgetune, interval, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
LABELS = ("negative", "positive")
PLAIN, PRETRAINED = "source-only", "continued pre-training"
WAYS = (PLAIN, PRETRAINED, "dann", "coral", "mmd")
Row = tuple[str, str]


def read(folder: Path) -> dict[str, list[str]]:
    """The different reviews of one domain by label."""
    return {label: list(dict.fromkeys((folder / f"review_{label}").read_text("utf-8").splitlines())) for label in LABELS}


def drawn(texts: Mapping[str, list[str]], count: int, chance: random.Random) -> list[Row]:
    """`count` rows, as many of each label, taken out of `texts`."""
    rows = []
    for label in LABELS:
        chance.shuffle(texts[label])
        rows += [(texts[label].pop(), label) for _ in range(count // len(LABELS))]
    chance.shuffle(rows)
    return rows


def write(asked: argparse.Namespace, seeds: Sequence[int]) -> None:
    source, target = (read(asked.data / name) for name in (asked.source, asked.target))
    known = {text for texts in source.values() for text in texts}
    target = {label: [text for text in texts if text not in known] for label, texts in target.items()}
    chance = random.Random("domains")
    table(asked.work / "source-test.csv", drawn(source, asked.tests, chance))
    table(asked.work / "target-test.csv", drawn(target, asked.tests, chance))
    table(asked.work / "target.csv", ((text,) for text, _ in drawn(target, asked.texts, chance)))
    for seed in seeds:
        table(
            asked.work / f"source-{seed}.csv",
            drawn({label: list(texts) for label, texts in source.items()}, asked.rows, random.Random(seed)),
        )


def table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        made = list(rows)
        csv.writer(file).writerows([("text", "label")[: len(made[0])], *made])


def pretrain(asked: argparse.Namespace) -> tuple[Path, float]:
    """The run of fill-mask on the target's texts, and the seconds that it took."""
    run = asked.work / "pretrained"
    flags = ("--model", MODEL, "--task", "fill-mask", "--data", str(asked.work / "target.csv"), "--max-length", str(asked.length))
    flags += ("--epochs", str(asked.pretraining_epochs), "--set", "adapt.baselines=false")
    seconds = edgetune("adapt", *flags, "--method", "full", "--output", str(run))
    edgetune("merge", str(run))
    return run, seconds


def measure(asked: argparse.Namespace, way: str, seed: int, settings: Sequence[str]) -> dict[str, Any]:
    """One run: accuracy on the source's test rows and on the target's."""
    work, run = asked.work, asked.work / f"{way.replace(' ', '-')}-{seed}"
    data = ("--data", str(work / f"source-{seed}.csv"), "--test", str(work / "source-test.csv"))
    data += ("--other-test", f"target={work / 'target-test.csv'}")
    start = ("--from", str(work / "pretrained")) if way == PRETRAINED else ("--model", MODEL)
    method = ("--method", way, "--domain-unlabelled", str(work / "target.csv")) if way not in (PLAIN, PRETRAINED) else ("--method", "full")
    length = ("--max-length", str(asked.length), "--epochs", str(asked.epochs))
    seconds = edgetune(
        "adapt", *start, *data, "--task", "text-classification", *method, *length, "--seed", str(seed), "--output", str(run), *settings
    )
    facts = report(run)
    target = facts["other_tests"]["sets"]["target"]
    return {
        **{"seed": seed, "source": facts["adapt"]["test"]["accuracy"], "target": target["value"], "target_ci95": target["ci95"]},
        **{"seconds": facts["adapt"]["seconds"], "wall_seconds": seconds, "epochs": len(facts["adapt"]["history"])},
    }


def shown(found: Mapping[str, Any]) -> str:
    """The result as Markdown: a line a way."""
    seeds = ", ".join(str(one["seed"]) for one in found["ways"][PLAIN])
    lines = [
        f"# {found['source']} -> {found['target']}",
        "",
        f"all-MiniLM-L6-v2, {found['rows']:,} labelled source rows, {found['texts']:,} target texts without labels, {found['tests']:,} test rows of each; "
        f"{found['epochs']} epochs, {found['length']} tokens a row, seeds {seeds}. Accuracy, mean over the seeds; differences in points to source-only "
        "of the same seed, with Student's 95 % interval over the seeds.",
        "",
        "| | source test | target test | target of each seed | target: difference (95 %) | source: difference (95 %) | target texts | seconds a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain = found["ways"][PLAIN]
    for way, runs in found["ways"].items():
        cells = [way, *(f"{statistics.mean(one[part] for one in runs):.4f}" for part in ("source", "target"))]
        cells.append(", ".join(f"{one['target']:.4f}" for one in runs))
        verdict = ""
        for part in ("target", "source"):
            mean, low, high = interval([100 * (one[part] - other[part]) for one, other in zip(runs, plain, strict=True)])
            cells.append("" if way == PLAIN else f"{mean:+.1f} ({low:+.1f} .. {high:+.1f})")
            if part == "target" and way != PLAIN:
                verdict = "harmed" if high < 0 else "helped" if low > 0 else "cannot be told apart"
        cells += [verdict, f"{statistics.mean(one['seconds'] for one in runs):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if found.get("pretraining_seconds"):
        lines += ["", f"The run of fill-mask ({found['pretraining_epochs']} epochs) took {found['pretraining_seconds']:.0f} seconds more."]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-domain"))
    parser.add_argument("--source", default="books")
    parser.add_argument("--target", default="kitchen")
    parser.add_argument("--rows", type=int, default=1000, help="labelled, of the source")
    parser.add_argument("--texts", type=int, default=2000, help="without labels, of the target")
    parser.add_argument("--tests", type=int, default=2000, help="of each domain")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default=",".join(WAYS), help="source-only is always among them")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pretraining-epochs", type=int, default=1)
    parser.add_argument("--length", type=int, default=64, help="tokens a row")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    ways = [way for way in WAYS if way == PLAIN or way in asked.ways.split(",")]
    write(asked, seeds)
    settings = [part for setting in (*asked.settings, "adapt.baselines=false") for part in ("--set", setting)]
    sizes = ("source", "target", "rows", "texts", "tests", "epochs", "pretraining_epochs", "length", "settings")
    found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), **{name: getattr(asked, name) for name in sizes}}
    if PRETRAINED in ways:
        pretrained, found["pretraining_wall_seconds"] = pretrain(asked)
        found["pretraining_seconds"] = report(pretrained)["adapt"]["seconds"]
    by_seed = [{way: measure(asked, way, seed, settings) for way in ways} for seed in seeds]
    found["ways"] = {way: [one[way] for one in by_seed] for way in ways}
    text = shown(found)
    print(text)
    if not asked.dry:
        record("domain", found, text)


if __name__ == "__main__":
    main()
