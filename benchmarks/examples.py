"""A task side by side with transformers' own example script: same base, same rows, same epochs.

    python benchmarks/examples.py NAME SCRIPTS [--work DIR] [--settings same,own] [--seed 0]

NAME is a row of `EXAMPLES`. Run `tasks.py NAME` with the same --work before: its run gives the rows, the settings and our result. SCRIPTS is
the folder examples/pytorch of a checkout of huggingface/transformers. `same`: with our learning rate, batch size, warm-up and precision;
`own`: with the script's own. The scripts fetch their metrics from the Hub; an empty stand-in takes the place of `evaluate`, and what they
predict for the test rows is scored here, as ours is. Records results/examples.json and .md; other rows stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
STAND_IN = """from collections import defaultdict


class Nothing:
    def compute(self, **asked):
        return defaultdict(float)


def load(*asked, **more):
    return Nothing()
"""
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Example:
    """`convert(row, number)`: a row as the script reads it; `said(folder)`: what it wrote; `score(rows, said)`: metrics as `tasks.py` names
    them, fractions."""

    script: str
    convert: Callable[[Mapping[str, Any], int], dict[str, Any]]
    said: Callable[[Path], Any]
    score: Callable[[Rows, Any], dict[str, float]]
    flags: tuple[str, ...] = ()
    suffix: str = "json"
    wrapped: bool = False  # the rows under the key "data"


def tags(rows: Rows, said: Any) -> dict[str, float]:
    from seqeval.metrics import f1_score, precision_score, recall_score

    from edgetune import source
    from edgetune.methods.model import tokenizer_in

    tokenizer, wanted, found = tokenizer_in(source.resolve(MODEL).folder), [row["tags"] for row in rows], []
    for row, told in zip(rows, said, strict=True):
        words = [row["text"][start:end] for start, end in row["words"]]
        places = sorted({i for i in tokenizer(words, is_split_into_words=True).word_ids() if i is not None})
        by_place = dict(zip(places, told, strict=True))  # the script says nothing of a word that the tokenizer drops
        found.append([by_place.get(i, "O") for i in range(len(words))])
    given = {"f1": f1_score, "precision": precision_score, "recall": recall_score}
    return {name: float(function(wanted, found, average="micro")) for name, function in given.items()}


def similarity(rows: Rows, said: Any) -> dict[str, float]:
    from scipy.stats import spearmanr

    return {"spearman": float(spearmanr([row["score"] for row in rows], [float(one) for one in said]).statistic)}


def relations(rows: Rows, said: Any) -> dict[str, float]:
    from edgetune import tasks

    labels = sorted({row["label"] for row in rows} | set(said))
    answer, truth = (np.array([labels.index(one) for one in some]) for some in (said, [row["label"] for row in rows]))
    scores = tasks.Scores((answer == truth).astype(float), np.ones(len(truth)), np.eye(len(labels), dtype=np.float32)[answer], truth)
    found = tasks.get("relation-extraction").module.metrics(scores, labels)
    return {name: found[name] for name in ("accuracy", "macro_f1", "micro_f1")}


def intents(rows: Rows, said: Any) -> dict[str, float]:
    from sklearn.metrics import f1_score

    wanted = [row["label"] for row in rows]
    return {
        "accuracy": statistics.mean(one == other for one, other in zip(wanted, said, strict=True)),
        "macro_f1": float(f1_score(wanted, said, average="macro")),
    }


def answers(rows: Rows, said: Any) -> dict[str, float]:
    from edgetune.tasks.question_answering import compare

    pairs = [[compare(said[str(i)], right, False) for _, right in row["answers"]] for i, row in enumerate(rows)]
    return {name: statistics.mean(max(pair[of] for pair in some) for some in pairs) for of, name in enumerate(("f1", "exact_match"))}


def tagged(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    return {"tokens": [row["text"][start:end] for start, end in row["words"]], "ner_tags": row["tags"]}


def asked(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    right = {"text": [text for _, text in row["answers"]], "answer_start": [start for start, _ in row["answers"]]}
    return {"id": str(number), "title": "", "context": row["context"], "question": row["question"], "answers": right}


def column(folder: Path) -> list[str]:
    lines = (folder / "predict_results_None.txt").read_text("utf-8").splitlines()[1:]
    return [line.split("\t", 1)[1] for line in lines]


GLUE = "text-classification/run_glue.py"
NER = "token-classification/run_ner.py"
EXAMPLES: dict[str, Example] = {
    "banking77": Example(
        GLUE, lambda row, _: {"text": row["text"], "label": row["label"]}, column, intents, ("--pad_to_max_length", "False")
    ),
    "wnut17": Example(
        NER, tagged, lambda folder: [line.split() for line in (folder / "predictions.txt").read_text("utf-8").split("\n")[:-1]], tags
    ),
    "stsb-pairs": Example(
        GLUE,
        lambda row, _: {"sentence1": row["text"], "sentence2": row["text_pair"], "label": float(row["score"])},
        column,
        similarity,
        ("--pad_to_max_length", "False"),
    ),
    "semeval2010_task8": Example(
        GLUE, lambda row, _: {"text": row["text"], "label": row["label"]}, column, relations, ("--pad_to_max_length", "False")
    ),
    "xquad": Example(
        "question-answering/run_qa.py",
        asked,
        lambda folder: json.loads((folder / "predict_predictions.json").read_text("utf-8")),
        answers,
        ("--pad_to_max_length", "False", "--max_seq_length", "256", "--doc_stride", "128"),
        wrapped=True,
    ),
}


def rows_of(run: Path, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "data" / f"{split}.jsonl").read_text("utf-8").splitlines()]


def theirs(example: Example, run: Path, scripts: Path, work: Path, flags: Sequence[str]) -> tuple[dict[str, float], float]:
    """Metrics on test, and wall time in seconds; what was finished with the same flags is not done again."""
    from edgetune import source

    done = work / "done.json"
    if done.exists() and (before := json.loads(done.read_text("utf-8")))["flags"] == list(flags):
        return example.score(rows_of(run, "test"), example.said(work / "out")), before["seconds"]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "evaluate.py").write_text(STAND_IN, "utf-8")
    files = []
    for split in ("train", "validation", "test"):
        rows = [example.convert(row, i) for i, row in enumerate(rows_of(run, split))]
        text = json.dumps({"data": rows}) if example.wrapped else "".join(f"{json.dumps(row)}\n" for row in rows)
        (work / f"{split}.json").write_text(text, "utf-8")
        files += [f"--{split}_file", str(work / f"{split}.json")]
    command = [sys.executable, str(scripts / example.script), "--model_name_or_path", str(source.resolve(MODEL).folder), *files]
    command += ["--output_dir", str(work / "out"), "--do_train", "--do_predict", "--save_strategy", "no", "--report_to", "none", *flags]
    started = time.monotonic()
    with (work / "log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": str(work), "HF_HUB_OFFLINE": "1"})
    seconds = round(time.monotonic() - started, 1)
    done.write_text(json.dumps({"flags": list(flags), "seconds": seconds}), "utf-8")
    return example.score(rows_of(run, "test"), example.said(work / "out")), seconds


def table(found: Mapping[str, Any]) -> str:
    lines = [
        "# Each task beside transformers' example script",
        "",
        "| data | metric | edgetune | script, our settings | script, its own | epochs |",
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, row in found.items():
        for metric in next(iter(row["theirs"].values()))["test"]:
            cells = [f"{row['theirs'][how]['test'][metric]:.4f}" if how in row["theirs"] else "-" for how in ("same", "own")]
            lines.append(f"| {name} | {metric} | {row['ours'][metric]:.4f} | {cells[0]} | {cells[1]} | {row['epochs']} |")
    lines += ["", "One seed each; the same base, rows and number of epochs. Ours may stop early, and takes the best epoch on validation."]
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=EXAMPLES)
    parser.add_argument("scripts", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark-tasks"))
    parser.add_argument("--settings", default="same,own")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    example, run = EXAMPLES[given.name], given.work / given.name / f"full-{given.seed}"
    adapted = json.loads((run / "report.json").read_text("utf-8"))["adapt"]
    ours = adapted["settings"]
    same = ["--learning_rate", ours["learning_rate"], "--per_device_train_batch_size", ours["batch_size"], "--warmup_steps", ours["warmup"]]
    same += ["--bf16"] if adapted["precision"] == "bf16" else []
    same += ["--use_cpu"] if adapted["device"] == "cpu" else []
    common = [*example.flags, "--num_train_epochs", ours["epochs"], "--seed", given.seed]
    place = HERE / "results" / "examples.json"
    results: dict[str, Any] = json.loads(place.read_text("utf-8")) if place.exists() else {}
    before = results.get(given.name, {}).get("theirs", {})
    row = {"script": example.script, "epochs": ours["epochs"], "seed": given.seed, "ours": adapted["test"], "theirs": before}
    for how in given.settings.split(","):
        flags = [str(flag) for flag in (*common, *(same if how == "same" else []))]
        test, seconds = theirs(example, run, given.scripts, given.work / given.name / f"script-{how}", flags)
        row["theirs"][how] = {"test": test, "flags": flags, "seconds": seconds, "date": time.strftime("%Y-%m-%d")}
        results[given.name] = row
        place.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        place.with_suffix(".md").write_text(table(results), "utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
