"""generate: what a model that writes answers to test rows, before and after it was adapted, beside answers that need no model."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from edgetune import data, methods, progress, tasks
from edgetune.artifact import Adapted, Dataset
from edgetune.errors import DataError
from edgetune.methods.model import load_base, load_tokenizer
from edgetune.recipe import Recipe
from edgetune.tasks import generated
from edgetune.workspace import write_json

ANSWERS = "answers.jsonl"
MODELS = ("untrained", "adapted")


def generate(recipe: Recipe, dataset: Dataset, adapted: Adapted, out: Path) -> dict[str, Any]:
    """Greedy answers to at most `adapt.generated` test rows, row by row in `out / "answers.jsonl"`. Returns their metrics by who wrote them.

    An answer has at most as many tokens as the 99th percentile of those in train, and a few. Answers of a model are kept for a run
    that goes on. Raises DataError when no test row can be asked.
    """
    task, tokenizer, longest = tasks.get(recipe.task), load_tokenizer(recipe), adapted.facts["max_length"]
    train, test = (data.rows(dataset.path, split) for split in ("train", "test"))
    every = task.module.asked(test, tokenizer, max_length=longest)
    if not every:
        raise DataError(f"no prompt of test leaves room for an answer within {longest} tokens", mend="raise adapt.max_length")
    asked = [every[i] for i in generated.chosen(len(every), recipe.adapt.generated, recipe.seed)]
    learned = [task.module.answer(row) for row in train]
    most = min(longest, generated.longest(learned, tokenizer, recipe.seed))
    progress.note(
        f"answers to {len(asked)} of {len(test)} test rows are generated, of at most {most} tokens"
        + (f" (drawn with seed {recipe.seed}; adapt.generated)" if len(asked) < len(every) else "")
    )
    method = methods.get(recipe.method)
    loaded: dict[str, Callable[[], PreTrainedModel]] = {
        "untrained": lambda: load_base(recipe, (), quantized=recipe.method == "qlora"),
        "adapted": lambda: import_module(method.module).restore(recipe, adapted.path, ()),
    }
    texts: dict[str, list[str]] = {}
    for name in MODELS if recipe.adapt.baselines else MODELS[1:]:
        kept = out.parent / f"{name}.json"
        if not kept.exists():
            write_json(kept, _written(name, loaded[name], recipe, tokenizer, asked, most, longest))
        texts[name] = json.loads(kept.read_text("utf-8"))
    simple = generated.BASELINES.items() if recipe.adapt.baselines else ()
    every_text = texts | {name: answer([one.text for one in asked], learned) for name, answer in simple}
    with (out / ANSWERS).open("w", encoding="utf-8", newline="\n") as file:
        for i, one in enumerate(asked):
            row = {"row": test[one.row]["row"], "prompt": one.text, "reference": one.reference}
            file.write(json.dumps({**row, **{name: answers[i] for name, answers in texts.items()}}, ensure_ascii=False) + "\n")
    references = [one.reference for one in asked]
    return {
        **{name: generated.measure(answers, references) for name, answers in every_text.items()},
        **{"rows": len(asked), "of": len(test), "max_new_tokens": most, "how": generated.how()},
    }


def _written(
    name: str, load: Callable[[], PreTrainedModel], recipe: Recipe, tokenizer: Any, asked: list[generated.Asked], most: int, longest: int
) -> list[str]:
    """Answers of one model, in float32 (or its 4 bits) and on the device that trained it."""
    module = tasks.get(recipe.task).module
    where = "cuda" if torch.cuda.is_available() and recipe.adapt.device != "cpu" else "cpu"
    model: Any = load()
    model.to(where).eval()
    stops = module.stop_ids(tokenizer, model.generation_config)
    with progress.bar(f"answers of the {name} model", len(asked)) as bar:
        found = generated.greedy(
            model,
            [one.ids for one in asked],
            pad_id=tokenizer.pad_token_id,
            stop_ids=stops,
            max_new_tokens=most,
            max_length=longest,
            done=bar.advance,
        )
    return [str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)) for ids in found]
