"""The setfit library, in its own environment: learn the rows of a file, answer those of another.

    python setfit_tool.py MODEL TRAIN TEST OUT [--seed 0] [--iterations 20]

MODEL: a folder; TRAIN, TEST: JSON lines with text and label. Batch, learning rates and epochs are the library's defaults; `--iterations` caps
its pairs, as its authors' paper does (R = 20; without, every pair of rows is learned, which takes hours). Writes answers and seconds to OUT.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    import setfit
    from datasets import Dataset

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "test", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=20)
    asked = parser.parse_args()
    train, test = ([json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in (asked.train, asked.test))
    labels = sorted({row["label"] for row in train})
    rows = Dataset.from_list([{"text": row["text"], "label": labels.index(row["label"])} for row in train])
    started = time.monotonic()
    model = setfit.SetFitModel.from_pretrained(str(asked.model))
    settings = setfit.TrainingArguments(
        output_dir=str(asked.out.parent / "setfit"), num_iterations=asked.iterations, seed=asked.seed, save_strategy="no", report_to="none"
    )
    setfit.Trainer(model=model, args=settings, train_dataset=rows).train()
    seconds = time.monotonic() - started
    answers = [labels[int(i)] for i in model.predict([row["text"] for row in test])]
    facts = {"version": setfit.__version__, "batch_size": settings.batch_size, "iterations": asked.iterations}
    asked.out.write_text(json.dumps({"answers": answers, "seconds": round(seconds, 1), **facts}), "utf-8")


if __name__ == "__main__":
    main()
