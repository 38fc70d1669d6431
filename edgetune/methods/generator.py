"""Texts that a local language model writes after rows of a label (few-shot data generation: Yoo et al., GPT3Mix, arXiv:2104.08826)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from edgetune import progress
from edgetune.errors import ModelError
from edgetune.methods.device import choose
from edgetune.methods.model import load_base, load_tokenizer
from edgetune.recipe import Recipe
from edgetune.sections import ContinualKeys, DataKeys

SHOWN = 5  # rows of the label in a prompt
LONGEST = 64  # tokens of a written text
BATCH = 32
TOP_P = 0.95  # of the probability that is drawn from (nucleus sampling, arXiv:1904.09751)


def written(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(label, a new text) `augment.copies` times for each of the train `rows`, drawn by the seed; a text may be empty, or one of the rows.

    Raises ModelError for a generator that cannot be loaded or whose prompts do not fit.
    """
    own = recipe.model_copy(
        update={
            **{"model": recipe.augment.generator, "task": "text-generation", "method": "full", "start": ""},
            **{"data": DataKeys(), "continual": ContinualKeys()},
        }
    )
    device = choose(recipe.adapt)
    tokenizer: Any = load_tokenizer(own)
    tokenizer.padding_side = "left"
    model: Any = load_base(own, ())
    model.to(device.torch).eval()
    most = getattr(model.config, "max_position_embeddings", None)
    asked = prompts(rows, recipe.augment.copies, recipe.seed)
    order = sorted(range(len(asked)), key=lambda i: len(asked[i][1]))
    found = [""] * len(asked)
    torch.manual_seed(recipe.seed)
    with progress.bar(f"texts by {recipe.augment.generator}", len(asked)) as bar:
        for start in range(0, len(order), BATCH):
            index = order[start : start + BATCH]
            given = tokenizer([asked[i][1] for i in index], return_tensors="pt", padding=True).to(device.torch)
            size = given["input_ids"].shape[1]
            if most and size + LONGEST > most:
                raise ModelError(
                    f"{SHOWN} rows and a new text are {size + LONGEST} tokens, but {recipe.augment.generator} takes {most}",
                    mend="leave generation out of --augment",
                )
            with torch.no_grad(), device.autocast():
                said = model.generate(
                    **{name: given[name] for name in ("input_ids", "attention_mask")},
                    **{"do_sample": True, "top_p": TOP_P, "top_k": 0, "temperature": 1.0, "max_new_tokens": LONGEST},
                    **{"pad_token_id": tokenizer.pad_token_id, "stop_strings": ["\n"], "tokenizer": tokenizer},
                )
            for i, ids in zip(index, said[:, size:], strict=True):
                found[i] = tokenizer.decode(ids, skip_special_tokens=True).split("\n")[0].strip()
            bar.advance(len(index))
    return [(label, text) for (label, _), text in zip(asked, found, strict=True)]


def prompts(rows: Sequence[Mapping[str, Any]], copies: int, seed: int) -> list[tuple[str, str]]:
    """(label, prompt) `copies` times for each row: a list of rows of its label, in another order each time, for the model to go on with."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        by_label[row["label"]].append(" ".join(row["text"].split()))
    found = []
    for label, texts in sorted(by_label.items()):
        draw = random.Random(f"{seed} {label}")
        for _ in range(copies * len(texts)):
            shown = draw.sample(texts, min(SHOWN, len(texts)))
            named = " ".join(label.replace("_", " ").split())
            found.append((label, "".join([f"Messages about {named}:\n", *(f"- {text}\n" for text in shown), "-"])))
    return found
