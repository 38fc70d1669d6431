"""What the measured programs write: answers to rows, in processes of their own as an app would run them, and how good they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgetune import progress
from edgetune.errors import StageError
from edgetune.runtime.answers.text_generation import until
from edgetune.runtime.contestants import Contestant
from edgetune.runtime.process import run
from edgetune.tasks import generated
from edgetune.tasks.generated import Asked

Rows = Sequence[Mapping[str, Any]]


def score(every: Sequence[Contestant], rows: Rows, *, most: int, provider: str | None = None) -> list[dict[str, Any] | None]:
    """For each of `every` the metrics of its greedy answers to the same rows, at most `most`; None where the task does not write.

    All may write as many tokens as the first says, and stop at its stop texts (edgetune.json, `generation`). Rows that one of them cannot be asked are
    left away for all. Raises StageError when a program fails.
    """
    first = every[0]
    if not most or not hasattr(first.task.module, "asked"):
        return [None] * len(every)
    asked = [_asked(one, rows) for one in every]
    common = sorted(set.intersection(*(set(found) for found in asked)))
    if not common:
        progress.warn("none of the rows leaves room for an answer: what is written is not measured")
        return [None] * len(every)
    chosen = [common[i] for i in generated.chosen(len(common), most, seed=0)]
    limit, stops = int(first.facts["generation"]["max_new_tokens"]), first.facts["generation"].get("stop", ())
    progress.note(f"answers to {len(chosen)} of {len(rows)} rows are generated, of at most {limit} tokens")
    facts = {"rows": len(chosen), "of": len(rows), "max_new_tokens": limit, "how": generated.how()}
    found: list[dict[str, Any] | None] = []
    with progress.bar("answers", len(every)) as bar:
        for one, mine in zip(every, asked, strict=True):
            prompts = [mine[i] for i in chosen]
            write = _pytorch if one.kind == "pytorch" else _bundle
            texts = [until(text, stops) for text in write(one, prompts, [rows[i] for i in chosen], limit, provider)]
            found.append({**generated.measure(texts, [prompt.reference for prompt in prompts]), **facts})
            bar.advance(text=one.path.name)
    return found


def _asked(one: Contestant, rows: Rows) -> dict[int, Asked]:
    """By index of the rows: those that `one` can be asked, and that leave room for an answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(one.folder, local_files_only=True)
    found = one.task.module.asked(rows, tokenizer, max_length=one.facts["max_length"])
    return {prompt.row: prompt for prompt in found if one.kind == "pytorch" or _item(one, rows[prompt.row])}


def _item(one: Contestant, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """What run.py is given of `row`; None where its model takes no conversation."""
    if "source" in row:
        return {"text": row["source"]}
    turns = row["messages"][:-1] if "messages" in row else [{"role": "user", "content": row["prompt"]}]
    if turns[0] == {"role": "system", "content": one.facts["generation"].get("system")}:
        turns = turns[1:]  # it stands in every prompt
    if [turn["role"] for turn in turns] == ["user"]:
        return {"text": turns[0]["content"]}
    return {"messages": turns} if one.facts["generation"].get("chat") else None


def _bundle(one: Contestant, asked: Sequence[Asked], rows: Rows, limit: int, provider: str | None) -> list[str]:
    options = [
        "--json",
        "--max-new-tokens",
        str(limit),
        *(["--beams", "1"] if one.task.family == "seq2seq" else []),
        *(["--provider", provider] if provider else []),
    ]
    done = run(one.folder, options, given="".join(f"{json.dumps(item)}\n" for item in (_item(one, row) for row in rows)))
    if done.exit_code:
        raise StageError(f"{one.path} cannot answer", details=done.stderr.splitlines()[-5:], mend=f"edgetune verify {one.path}")
    return [str(json.loads(line)["text"]) for line in done.output.splitlines()]


def _pytorch(one: Contestant, asked: Sequence[Asked], rows: Rows, limit: int, provider: str | None) -> list[str]:
    from transformers import AutoTokenizer

    from edgetune.runtime.pytorch import load

    tokenizer, model = AutoTokenizer.from_pretrained(one.folder, local_files_only=True), load(one.folder, one.task)
    found = generated.greedy(
        model,
        [prompt.ids for prompt in asked],
        pad_id=one.facts["pad_id"],
        stop_ids=one.task.module.stop_ids(tokenizer, model.generation_config),
        max_new_tokens=limit,
        max_length=one.facts["max_length"],
    )
    return [str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)) for ids in found]
