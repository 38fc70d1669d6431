"""`edgetune data`: look at a data set before training on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetune.cli.options import everywhere, load_recipe, takes

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgetune.data import Loaded
    from edgetune.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=False)
MOST_ROWS = 15  # of what was left out, and of labels, on a screen; --json has all
LONGEST = 512  # tokens of the sample


@app.command()
@everywhere
@takes("data", only=("task", "model", "adapt.max_length", "seed", "trust_remote_code"))
def check(
    overrides: dict[str, Any],
    data: Annotated[str | None, typer.Argument(metavar="DATA", help="file, folder of split files, or hub id", show_default=False)] = None,
    show_tokens: Annotated[
        bool, typer.Option("--show-tokens", metavar="", help="print a sample as the model sees it (with --model)", show_default=False)
    ] = False,
) -> None:
    """What is in it, what is wrong, row by row. Exit 2 when it cannot be trained on."""
    from edgetune.cli.output import out
    from edgetune.data import other_tests
    from edgetune.errors import RecipeError

    if data is not None:
        overrides = {"data.path": data, **overrides}
    recipe = load_recipe(None, overrides)
    if show_tokens and not recipe.model:
        raise RecipeError(
            "--show-tokens needs a model, whose tokenizer makes the tokens", mend="edgetune data check DATA --model MODEL --show-tokens"
        )
    recipe, loaded = _load(recipe)
    others = {name: one.facts for name, one in other_tests.load(recipe, loaded.facts, loaded.splits["train"]).items()}
    found = {**loaded.facts, **({"other_tests": others} if others else {})}
    shown = list(_overview(found))
    if show_tokens:
        tokens = sample(recipe, loaded)
        found = {**found, "sample": tokens}
        shown += _tokens(tokens, colour=out.colour)
    out.result(found, *shown, quiet=[f"{split}\t{count}" for split, count in found["rows"].items()])
    out.hint(f"edgetune adapt {_flags(recipe)} --task {recipe.task} --model MODEL --method METHOD --output RUN")


def _flags(recipe: Recipe) -> str:
    """The flags that say where the data is and what is in it, as they were given."""
    import shlex

    from edgetune.cli.options import flag

    given = recipe.data.model_dump(exclude_defaults=True)
    return " ".join(f"{flag(f'data.{name}')} {shlex.quote(str(value))}" for name, value in given.items())


def sample(recipe: Recipe, loaded: Loaded) -> dict[str, Any]:
    """The first usable training row as the model sees it: `tokens` [{id, text, learned}], and its `label` (or what else is learned) where no
    token is."""
    from edgetune import tasks
    from edgetune.data.columns import answer
    from edgetune.errors import DataError
    from edgetune.methods.model import load_tokenizer

    tokenizer = load_tokenizer(recipe)
    encoded = tasks.get(recipe.task).module.encode(
        loaded.splits["train"][:MOST_ROWS], tokenizer, max_length=recipe.adapt.max_length or LONGEST, labels=loaded.facts["labels"]
    )
    if not encoded.examples:
        raise DataError(
            "none of the first rows fits the model",
            details=[f"row {i}: {reason}" for i, reason in encoded.left_out[:5]],
            mend="a larger --max-length",
        )
    example = encoded.examples[0]
    ids, targets = example["input_ids"], example.get("labels", ())
    learned = [label >= 0 for label in targets] if len(targets) == len(ids) else [False] * len(ids)
    if "decoder_input_ids" in example:  # another text is learned than the one that is read: it follows
        ids, learned = [*ids, *targets], [False] * len(ids) + [True] * len(targets)
    texts = [tokenizer.decode([token]) for token in ids]
    index = example.get("label")
    whole = None if any(learned) else answer(loaded.splits["train"][0])
    return {
        "tokens": [{"id": int(i), "text": text, "learned": known} for i, text, known in zip(ids, texts, learned, strict=True)],
        "label": whole if index is None else loaded.facts["labels"][index] if index >= 0 else loaded.facts["out_of_scope"],
    }


def _load(recipe: Recipe) -> tuple[Recipe, Loaded]:
    """The data, and the recipe with its task: the one given, else the one that the data is for."""
    from edgetune import data
    from edgetune.data import infer

    if not recipe.task:
        recipe = recipe.model_copy(update={"task": infer.task(recipe)})
    return recipe, data.load(recipe)


def _overview(found: dict[str, Any]) -> list[RenderableType]:
    from edgetune.cli.output import facts, table

    cut = found["cut"]
    splits = [
        (
            split,
            f"{count:,}",
            f"cut from {cut[split]}" if split in cut else "",
            found["duplicates"].get(split),
            *_lengths(found["characters"].get(split, {})),
        )
        for split, count in found["rows"].items()
    ]
    dropped = found["dropped"]
    shown: list[RenderableType] = [
        facts(
            {
                "task": found["task"],
                "columns": ", ".join(f"{column} = {name}" for column, name in found["columns"].items()),
                "files": ", ".join(f"{file['file']} ({file['rows']:,} rows, {file['split']})" for file in found["files"]),
                **({"ignored": ", ".join(found["ignored"])} if found["ignored"] else {}),
                **{
                    f"other test {name}": f"{one['file']} ({one['rows']:,} rows, {len(one['dropped']):,} left out)"
                    for name, one in found.get("other_tests", {}).items()
                },
                "read": f"{found['read']:,} rows, {len(dropped):,} of them left out",
                **({"out of scope": found["out_of_scope"]} if found["out_of_scope"] else {}),
                **({"labels": len(found["label_counts"]["train"].keys() - {found["out_of_scope"]})} if found["label_counts"] else {}),
                **({"entity types": len(found["entity_counts"]["train"])} if found["entity_counts"] else {}),
                **{f"scores in {split}": "{min:g} to {max:g}, mean {mean:.2f}".format(**part) for split, part in found["scores"].items()},
                **{
                    f"answers in {split}": f"{part['answered']:,}"
                    + (f", {part['unanswered']:,} questions without" if part["unanswered"] else "")
                    for split, part in found["answers"].items()
                },
                **({"together": f"rows of the same {found['group']} are in one split"} if found["group"] else {}),
                **{f"overlap {pair.replace('_', ' and ')}": f"{count:,} rows" for pair, count in found["overlap"].items() if count},
                **({"several answers": f"{found['conflicts']['texts']:,} texts"} if found["conflicts"]["texts"] else {}),
            }
        ),
        table(
            splits,
            "split",
            "rows",
            "",
            "same text twice",
            "characters: median",
            "95 %",
            "longest",
            right=("rows", "same text twice", "characters: median", "95 %", "longest"),
        ),
    ]
    shown += [_counts(found[of], what) for of, what in (("label_counts", "label"), ("entity_counts", "entity type")) if found[of]]
    if mended := found["mended"]:
        shown.append(_rows(mended, "mended", "what"))
    if dropped:
        shown.append(_rows(dropped, "left out", "reason"))
    return shown


def _counts(counts: dict[str, dict[str, int]], what: str) -> RenderableType:
    """How often each class is in each split, the most frequent first."""
    from edgetune.cli.output import table

    every = {name: counts["train"].get(name, 0) for part in counts.values() for name in part}
    order = sorted(every, key=lambda name: (-every[name], name))
    rows = [(name, *(part.get(name, 0) for part in counts.values())) for name in order]
    if len(rows) > 2 * MOST_ROWS:
        rows = [*rows[:MOST_ROWS], (f"... {len(rows) - 2 * MOST_ROWS} more", *([""] * len(counts))), *rows[-MOST_ROWS:]]
    return table(rows, what, *counts, right=counts)


def _rows(listed: list[dict[str, Any]], title: str, what: str) -> RenderableType:
    from edgetune.cli.output import table

    rows = [(one["file"], one["row"], one["reason"]) for one in listed[:MOST_ROWS]]
    more = f", the first {MOST_ROWS} (--json has all)" if len(listed) > MOST_ROWS else ""
    return table(rows, "file", "row", what, title=f"{title}: {len(listed):,} rows{more}", right=("row",))


def _lengths(characters: dict[str, dict[str, float]]) -> tuple[str, str, str]:
    """Median, 95th percentile and maximum; of each text column, in turn."""
    median, p95, longest = (" / ".join(f"{column[key]:,.0f}" for column in characters.values()) for key in ("median", "p95", "max"))
    return median, p95, longest


def _tokens(found: dict[str, Any], *, colour: bool) -> list[RenderableType]:
    """The sample: what is trained on in colour, or in [brackets]."""
    from rich.text import Text

    shown = Text()
    for token in found["tokens"]:
        if token["learned"]:
            shown.append(token["text"] if colour else f"[{token['text']}]", style="bold green")
        else:
            shown.append(token["text"] if colour else f"{token['text']} ".replace("\n ", "\n"), style="dim")
    mark = "green" if colour else "in [brackets]"
    learned = sum(token["learned"] for token in found["tokens"])
    if found["label"] is not None:
        return ["the first row, as the model sees it:", shown, Text.assemble("learned: the label ", (str(found["label"]), "bold green"))]
    return [f"the first row, as the model sees it; {learned} of {len(found['tokens'])} tokens are learned ({mark}):", shown]
