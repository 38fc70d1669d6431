"""Every task in numbers: a data set, adapted with the defaults by three seeds, against the frozen base; then int8 behind the gate.

    python benchmarks/tasks.py NAME DATA [--work DIR] [--seeds 0,1,2] [--target x86_64-vnni] [--set KEY=VALUE]... [--no-head]
        [--dry]

NAME is a row of `ROWS`, DATA the folder of its data set. Each command is the command line that a user types, as a process of its own. Writes
results/tasks-NAME.json and .md; with --dry nothing is recorded, with --no-head what is recorded of the head stays. The baselines are those of `adapt`: the untrained model, and a logistic
regression on the frozen base's features; beside them, unless --no-head, `--method head`: the trained head on a frozen base.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sets
from command import edgetune, record, report

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Row:
    """`write(data, out)` makes a folder of split files that edgetune reads as it is; `asked`: metric -> what was asked of it."""

    task: str
    write: Callable[[Path, Path], None]
    asked: Mapping[str, float] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    head: str = "head"  # the method of the frozen-head baseline, "" for none
    model: str = MODEL
    method: str = "full"
    note: str = ""


def banking77(data: Path, out: Path) -> None:
    for name in ("train", "test"):
        sets.write(out / f"{name}.csv", sets.banking77(data, name))


def wnut17(data: Path, out: Path) -> None:
    for name, own in (("train", "wnut17train.conll"), ("validation", "emerging.dev.conll"), ("test", "emerging.test.annotated")):
        shutil.copyfile(data / own, out / f"{name}.conll")


def snips(data: Path, out: Path) -> None:
    """Validation is edgetune's to cut from train."""
    for split in ("train", "test"):
        (out / f"{split}.json").write_text(json.dumps(dict(sets.snips_requests(data, split))), "utf-8")


def semeval2010_task8(data: Path, out: Path) -> None:
    for name in ("train", "test"):
        with (data / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
            save(
                out / f"{name}.jsonl",
                ({"label": label, "text": text} for label, text in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)),
            )


def stsb(data: Path, out: Path) -> None:
    for name, own in (("train", "train"), ("validation", "dev"), ("test", "test")):
        with (data / f"stsb-en-{own}.csv").open(encoding="utf-8", newline="") as file:
            save(
                out / f"{name}.jsonl", ({"text": one, "text_pair": other, "score": float(score)} for one, other, score in csv.reader(file))
            )


def xquad(data: Path, out: Path) -> None:
    shutil.copyfile(data / "xquad.en.json", out / "train.json")


def snips_kinds(data: Path, out: Path) -> None:
    """The kinds of the slots that a request names, whatever its intent, as its labels."""
    snips(data, out)
    for path in sorted(out.iterdir()):
        requests = [request["data"] for some in json.loads(path.read_text("utf-8")).values() for request in some]
        texts = ("".join(piece["text"] for piece in request) for request in requests)
        labels = (sorted({piece["entity"] for piece in request if "entity" in piece}) for request in requests)
        save(path.with_suffix(".jsonl"), ({"text": text, "labels": kinds} for text, kinds in zip(texts, labels, strict=True)))
        path.unlink()


def mts_dialog(data: Path, out: Path) -> None:
    """Sections of clinical notes from what doctor and patient said."""
    for name, own in (("train", "TrainingSet"), ("validation", "ValidationSet"), ("test", "TestSet-1-MEDIQA-Chat-2023")):
        with (data / f"MTS-Dialog-{own}.csv").open(encoding="utf-8", newline="") as file:
            rows = [{part: text.replace("\r\n", "\n").strip() for part, text in row.items()} for row in csv.DictReader(file)]
        asked = [f"Write the section {row['section_header']} of the clinical note.\n\n{row['dialogue']}" for row in rows]
        save(
            out / f"{name}.jsonl",
            (
                {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": row["section_text"]}]}
                for text, row in zip(asked, rows, strict=True)
            ),
        )


def nl2bash(data: Path, out: Path) -> None:
    """Some rows of each split that the example makes: few enough for a CPU."""
    script = Path(__file__).parent.parent / "examples" / "nl2bash" / "prepare.py"
    subprocess.run([sys.executable, str(script), str(data / "all.nl"), str(data / "all.cm"), str(out)], check=True)
    for name, most in (("train", 3000), ("validation", 200), ("test", 300)):
        path = out / f"{name}.jsonl"
        path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:most]), "utf-8")


def wikitext2(data: Path, out: Path) -> None:
    """Learned from its validation texts, for its train file is not among ours; what is chosen is chosen on rows cut from them."""
    for name, own in (("train", "valid"), ("test", "test")):
        shutil.copyfile(data / f"{own}.txt", out / f"{name}.txt")


def save(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), "utf-8")


ROWS: dict[str, Row] = {
    "banking77": Row(task="text-classification", write=banking77),
    "wnut17": Row(
        task="token-classification",
        write=wnut17,
        note="test has entities that training never saw, by design; 10 points of F1 over the frozen head were asked",
    ),
    "snips-slots": Row(
        task="token-classification",
        write=snips,
        settings=("data.on_bad_row=drop",),
        note="3 of the 700 test rows are left out: a span of theirs cuts a word",
    ),
    "snips": Row(
        task="intent-and-slots",
        write=snips,
        asked={"intent_accuracy": 0.98, "slot_f1": 0.90},
        settings=("data.on_bad_row=drop",),
        note="3 of the 700 test rows are left out: a span of theirs cuts a word",
    ),
    "semeval2010_task8": Row(
        task="relation-extraction",
        write=semeval2010_task8,
        asked={"macro_f1": 0.80},
        note="macro_f1 as the task scores it: nine relations, direction counted, Other left out",
    ),
    "stsb": Row(
        task="sentence-similarity",
        write=stsb,
        asked={"spearman": 0.84},
        head="",
        note="a bi-encoder: each sentence's vector is made alone, their cosine is compared",
    ),
    "stsb-pairs": Row(task="text-regression", write=stsb, note="a cross-encoder: both sentences are read together"),
    "xquad": Row(
        task="question-answering",
        write=xquad,
        head="",
        note="1,190 questions in all, cut by article: few to learn from, and few to measure with",
    ),
    "snips-kinds": Row(task="multi-label-classification", write=snips_kinds),
    "wikitext2": Row(
        task="fill-mask",
        write=wikitext2,
        head="",
        note="an encoder of sentences has no head for this task: a new one, tied to the embedding, is learned with it",
    ),
    "nl2bash": Row(
        task="text-generation",
        write=nl2bash,
        settings=("adapt.max_steps=120", "adapt.max_length=96", "adapt.learning_rate=5e-4"),
        head="",
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        method="lora",
        note="the first 3,000 / 200 / 300 rows of the splits, 120 steps of 8 rows, for a CPU; lead: the prompt's first words",
    ),
    "mts_dialog": Row(
        task="text-generation",
        write=mts_dialog,
        settings=("adapt.max_steps=60", "adapt.max_length=512", "adapt.generated=60"),
        head="",
        model="HuggingFaceTB/SmolLM2-135M-Instruct",
        method="lora",
        note="sections of clinical notes, written from the dialogue; 60 steps of 8 rows, less than half of the training rows, for a CPU; lead: the dialogue's first words, as many as a section has",
    ),
}
KEEP = ("scheme", "size_bytes", "metric", "quality", "baseline", "drop", "rows", "flips", "verdict", "proven", "test", "test_float")


def adapt(row: Row, data: Path, run: Path, method: str, seed: int, settings: Iterable[str]) -> dict[str, Any]:
    given = {"model": row.model, "data": str(data), "task": row.task, "method": method, "seed": str(seed), "output": str(run)}
    flags = [part for name, value in given.items() for part in (f"--{name}", value)]
    seconds = edgetune("adapt", *flags, *(part for setting in settings for part in ("--set", setting)))
    facts = report(run)["adapt"]
    keep = ("test", "test_without_overlap", "baselines", "settings", "steps", "precision", "threads", "peak_rss_bytes")
    found = {"method": method, "seed": seed, "command_seconds": seconds, "epochs": len(facts["history"])}
    return found | {name: facts.get(name) for name in keep} | {"generated": report(run).get("generated")}


def export(run: Path, target: str) -> dict[str, Any]:
    seconds = edgetune("export", str(run), "--target", target)
    facts = report(run)["export"][target]
    return {"target": target, "command_seconds": seconds, **{name: facts[name] for name in KEEP}}


def spread(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, least and most of each test metric over the seeds."""
    tests = [one["test"] for one in runs]
    values = {name: [test[name] for test in tests] for name in tests[0]}
    return {name: {"mean": statistics.mean(some), "min": min(some), "max": max(some)} for name, some in values.items()}


def table(name: str, row: Row, found: Mapping[str, Any]) -> str:
    """The result as Markdown: a line a metric."""
    before, int8 = found["adapted"][0]["baselines"] or {}, found["int8"]
    columns = {**{what.replace("_", " "): metrics for what, metrics in before.items()}}
    if found["head"]:
        columns["frozen head, trained"] = found["head"]["test"]
    head = ["metric", *columns, f"adapted, mean of {len(found['adapted'])} (least .. most)", "int8", "asked"]
    lines = [f"# {name}: {row.task}", "", " | ".join(["", *head, ""]).strip(), "|".join(["", *["---"] * len(head), ""])]
    for metric, over in found["spread"].items():
        seeds = f"{over['mean']:.4f} ({over['min']:.4f} .. {over['max']:.4f})"
        cells = [
            metric,
            *(f"{part[metric]:.4f}" if metric in part else "-" for part in columns.values()),
            seeds,
            f"{int8['test'][metric]:.4f}",
        ]
        lines.append("| " + " | ".join([*cells, f">= {row.asked[metric]:g}" if metric in row.asked else ""]) + " |")
    lines += written(found["adapted"][0]["generated"])
    size = f"{int8['size_bytes'] / 1e6:.1f} MB"
    lines += [
        "",
        f"int8 is the bundle of seed {found['adapted'][0]['seed']} for {int8['target']}: {int8['scheme']}, {size}; {int8['verdict']}.",
    ]
    return "\n".join([*lines, *(["", row.note] if row.note else []), ""])


def written(found: Mapping[str, Any] | None) -> list[str]:
    """What models wrote, as a table of who wrote by metric; nothing for tasks that write nothing."""
    if not found:
        return []
    metrics = {name: value for name, value in found.items() if isinstance(value, Mapping) and name != "tools"}
    names = list(next(iter(metrics.values())))
    lines = ["", f"Answers to {found['rows']} of {found['of']} test rows:", "", "| metric | " + " | ".join(metrics) + " |"]
    lines.append("|---" * (len(metrics) + 1) + "|")
    return lines + [f"| {name} | " + " | ".join(f"{one[name]:.4f}" for one in metrics.values()) + " |" for name in names]


def recorded(name: str) -> dict[str, Any] | None:
    """What an earlier call has recorded of the head."""
    place = Path(__file__).parent / "results" / f"tasks-{name}.json"
    found: dict[str, Any] | None = json.loads(place.read_text("utf-8"))["head"] if place.exists() else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ROWS)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-tasks"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--target", default="x86_64-vnni")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-head", action="store_true")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    asked = parser.parse_args()
    row, work = ROWS[asked.name], asked.work / asked.name
    data = work / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    row.write(asked.data, data)
    settings = (*row.settings, *asked.settings)
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    adapted = [adapt(row, data, work / f"{row.method}-{seed}", row.method, seed, settings) for seed in seeds]
    head = recorded(asked.name) if asked.no_head else None
    if row.head and not asked.no_head:
        head = adapt(row, data, work / "head", row.head, seeds[0], settings)
    found = {
        "name": asked.name,
        "task": row.task,
        "date": time.strftime("%Y-%m-%d"),
        "asked": dict(row.asked),
        "adapted": adapted,
        "spread": spread(adapted),
        "head": head,
        "int8": export(work / f"{row.method}-{seeds[0]}", asked.target),
    }
    text = table(asked.name, row, found)
    print(text)
    if not asked.dry:
        record(f"tasks-{asked.name}", found, text)


if __name__ == "__main__":
    main()
