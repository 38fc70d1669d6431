"""`edgetune predict --explain`: why a bundle, or the model of a run, answers as it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.cli.output import out, table
from edgetune.errors import RequestError, RunError

if TYPE_CHECKING:
    from rich.text import Text

    from edgetune.tasks.attribution import Explanation

STRONGEST = 12  # words in the table
LEAST = 0.15  # of the strongest word's: what is coloured
FOR, AGAINST = "green", "red"

Item = dict[str, str]
Explain = Callable[[Any], tuple[Item, "Explanation"]]


def explain(folder: Path, texts: Iterable[str], label: str | None, html: Path | None, provider: str | None, threads: int | None) -> None:
    """Print, and write into `html`, what each word of each of `texts` adds to the score of `label`."""
    if (folder / "recipe.toml").is_file():
        if provider or threads:
            raise RequestError("a run is explained in PyTorch, which takes no --provider and no --threads", mend="explain a bundle")
        ask = _of_run(folder, label)
    else:
        ask = _of_bundle(folder, label, provider, threads)
    found = []
    for text in texts:
        item, said = ask(text)
        if said.cut:
            out.warn("the text is longer than the model reads, and was cut")
        found.append((item, said))
        if not out.json:
            out.result(None, *_shown(item, said), quiet=[f"{word.word}\t{word.attribution:+.4f}" for word in said.words])
    facts = [{"input": item, **said.facts()} for item, said in found]
    if html is not None:
        from edgetune.report.page import explained_html
        from edgetune.workspace import write_text

        write_text(html, explained_html(facts, folder.resolve().name))
        out.note(f"page: {html}")
    if out.json:
        out.result(facts)


def _of_bundle(folder: Path, label: str | None, provider: str | None, threads: int | None) -> Explain:
    from edgetune.runtime import load, occlusion
    from edgetune.runtime.worker import understood

    bundle = load(folder, threads=threads, provider=provider)

    def ask(text: str) -> tuple[Item, Explanation]:
        item = bundle.item(understood(text, bundle.facts["asks"]))
        return item, occlusion.explain(bundle, item, label)

    return ask


def _of_run(folder: Path, label: str | None) -> Explain:
    from edgetune import tasks
    from edgetune.artifact import Merged
    from edgetune.methods.integrated_gradients import Explainer
    from edgetune.runtime.worker import understood
    from edgetune.tasks.attribution import kind
    from edgetune.workspace import existing

    run = existing(folder)
    kind(run.recipe.task)
    merged = run.finished("merge", Merged, "merged")
    if merged is None:
        raise RunError(f"{folder} holds no merged model", mend=f"edgetune merge {folder}")
    facts = merged.facts
    explainer = Explainer(merged.path, run.recipe.task, facts["labels"], facts["max_length"])
    asks = facts.get("asks") or tasks.get(run.recipe.task).asks[:1]

    def ask(text: str) -> tuple[Item, Explanation]:
        given = understood(text, asks)
        fields = given if isinstance(given, dict) else dict(zip(asks, text.split("\t") if len(asks) > 1 else [text], strict=False))
        if any(not isinstance(fields.get(name), str) for name in asks):
            raise RequestError(f"this model asks for {' and '.join(asks)}: give each as a text, with a tab between")
        item = {name: fields[name] for name in asks}
        return item, explainer.explain(item, label)

    return ask


def _shown(item: Item, said: Explanation) -> list[Any]:
    """What people see: the answer, the text with what speaks for it and against it, and the strongest words."""
    from rich.text import Text

    unit = "log-odds" if said.label is not None else "score"
    sure = f"  {said.chance:.3f}" if said.chance is not None else ""
    lines: list[Any] = [
        Text(f"{said.label if said.label is not None else 'number'}{sure}  ({unit} {said.score:+.3f}, {said.how})", style="bold")
    ]
    lines += [_coloured(name, text, said) for name, text in item.items()]
    strongest = sorted(said.words, key=lambda word: -abs(word.attribution))[:STRONGEST]
    lines.append(table([(word.word, f"{word.attribution:+.3f}") for word in strongest], "word", unit, right=(unit,)))
    if said.baseline is not None:
        rest = f" {said.elsewhere:+.3f} elsewhere" if said.elsewhere else ""
        lines.append(
            Text(f"from {said.baseline:+.3f} without any word; the words add up but for {abs(said.gap or 0):.1g}{rest}", style="dim")
        )
    return lines


def _coloured(field: str, text: str, said: Explanation) -> Text:
    from rich.text import Text

    shown = Text(text)
    most = max(abs(word.attribution) for word in said.words)
    for word in said.words:
        strength = abs(word.attribution) / most if most else 0.0
        if word.field == field and strength >= LEAST:
            weight = "bold " if strength > 0.5 else ""
            shown.stylize(f"{weight}{FOR if word.attribution > 0 else AGAINST}", word.start, word.end)
    return shown
