"""Full fine-tuning by a plain transformers.Trainer: the splits of a run, the same numbers, the epoch that is best on validation.

    python trainer_tool.py RUN MODEL OUT SETTINGS [--bf16] [--grouped] [--steps 0]

RUN/data has train, validation and test.jsonl with text and label; SETTINGS is the JSON of a run's `adapt.settings`. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments


def rows(run: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "data" / f"{split}.jsonl").read_text("utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--grouped", action="store_true")
    parser.add_argument("--steps", type=int, default=0)
    asked = parser.parse_args()
    numbers, splits = asked.settings, {split: rows(asked.run, split) for split in ("train", "validation", "test")}
    labels = sorted({row["label"] for row in splits["train"]})
    tokenizer = AutoTokenizer.from_pretrained(asked.model)

    def encoded(split: str) -> Dataset:
        found = tokenizer([row["text"] for row in splits[split]], truncation=True, max_length=512)
        return Dataset.from_dict({**found, "labels": [labels.index(row["label"]) for row in splits[split]]})

    data = {split: encoded(split) for split in splits}
    model = AutoModelForSequenceClassification.from_pretrained(asked.model, num_labels=len(labels))
    arguments = TrainingArguments(
        asked.out,
        num_train_epochs=numbers["epochs"],
        max_steps=asked.steps or -1,
        per_device_train_batch_size=numbers["batch_size"],
        per_device_eval_batch_size=64,
        learning_rate=numbers["learning_rate"],
        warmup_steps=numbers["warmup"],
        weight_decay=numbers["weight_decay"],
        label_smoothing_factor=numbers["label_smoothing"],
        seed=numbers["seed"],
        bf16=asked.bf16,
        train_sampling_strategy="group_by_length" if asked.grouped else "random",
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda said: {"accuracy": float((np.argmax(said.predictions, -1) == said.label_ids).mean())},
    )
    started = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - started
    found = trainer.evaluate(data["test"])
    print(json.dumps({"train_seconds": round(seconds, 1), "steps": trainer.state.global_step, "accuracy": found["eval_accuracy"]}))


if __name__ == "__main__":
    main()
