"""A run's report, and a benchmark's, as one self-contained HTML page: nothing is fetched, plots are inline SVG.

Every stage writes the page anew, so any prefix of the stages gives a page. What is shown comes from the dict alone, which holds
no text of the user's rows; each number stands in a `<data value="...">` with its exact value.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChainableUndefined, Environment, FunctionLoader
from markupsafe import Markup

from edgetune import tasks
from edgetune.report import formats, plots, rivals

Facts = Mapping[str, Any]
MOST_ROWS = 50  # row numbers that are written out for one reason
FINE = 1000  # test rows from which a percentage has two decimals
SAME_AS = "the same as "  # how the reason of a dropped duplicate begins; the row that it repeats follows


def html(report: Facts) -> str:
    """The page of `report` (see `edgetune.report.assemble`), with the stages that are in it."""
    recipe = report.get("recipe") or {}
    task = tasks.get(recipe["task"])
    adapt, prepare, measured = (report.get(name) or {} for name in ("adapt", "prepare", "benchmark"))
    exported = report.get("export") or {}
    targets = [
        {"name": name, "facts": facts, "measured": _of_target(measured, name), "sensitivity": _sensitivity(number, facts, task.metric)}
        for number, (name, facts) in enumerate(exported.items())
    ]
    scored = {split: _in_scope(prepare, split) for split in prepare.get("rows", ())}
    if exported:
        scored["test"] = next(iter(exported.values()))["rows"]
    return _render(
        "report.html.j2",
        report=report,
        recipe=recipe,
        task=task,
        digits=2 if scored.get("test", 0) >= FINE else 1,
        scored=scored,
        steps=_steps(report, task),
        targets=targets,
        kept=_kept(adapt.get("history", ()), task),
        history_columns=[name for name in (adapt.get("history") or [{}])[0] if name != "tie"],
        dropped=_dropped(prepare.get("dropped", ())),
        labels=_worst_first(adapt.get("per_label", ())),
        sure=_sure(adapt, targets),
        written={name: found for name, found in (report.get("generated") or {}).items() if isinstance(found, Mapping) and "chrf" in found},
        about_rows=[
            note for note in _notes(report).get("adapt", ()) if note.startswith(tuple(f"{split}: " for split in prepare.get("rows", ())))
        ],
        stages=list(_stages(report)),
        tools=_tools(report),
        settings=list(_flat(recipe)),
        notes={stage: notes for stage, notes in _notes(report).items() if notes},
        plots={
            "curves": _drawn(plots.curves(adapt.get("history", ()), task.metric)),
            "result": _drawn(plots.bars(_results(report, task), task.metric, task.higher_is_better)),
            "tradeoff": _drawn(plots.tradeoff(_points(targets), task.metric)),
            "pareto": _drawn(plots.pareto(_searched(targets))),
            **_measured(measured.get("bundles", ())),
        },
    )


def benchmark_html(result: Facts) -> str:
    """The page of a result of the schema "edgetune.benchmark/1"."""
    rows = max(((bundle.get("quality") or {}).get("n") or 0 for bundle in result["bundles"]), default=0)
    return _render(
        "benchmark.html.j2",
        report={"benchmark": result},
        digits=2 if rows >= FINE else 1,
        plots=_measured(result["bundles"]),
    )


def explained_html(found: Sequence[Facts], name: str) -> str:
    """The page of what `edgetune.tasks.attribution.Explanation.facts` says of some texts, each with its `input`; `name`: who answers."""
    return _render("explained.html.j2", name=name, found=[{**one, "parts": _marked(one)} for one in found])


def _marked(one: Facts) -> dict[str, list[dict[str, Any]]]:
    """Each text of the input in pieces: a word with its `strength`, 0 to 1, or what is between words."""
    most = max(abs(word["attribution"]) for word in one["words"]) or 1.0
    pieces: dict[str, list[dict[str, Any]]] = {}
    for field, text in one["input"].items():
        done, parts = 0, []
        for word in (word for word in one["words"] if word["field"] == field):
            strength = abs(word["attribution"]) / most
            parts += [{"text": text[done : word["start"]]}, {"text": word["word"], "word": word, "strength": strength}]
            done = word["end"]
        pieces[field] = [part for part in [*parts, {"text": text[done:]}] if part["text"]]
    return pieces


def _measured(bundles: Sequence[Facts]) -> dict[str, Markup]:
    """The plots of a benchmark."""
    named = formats.entries(bundles)
    drawn = {"latency": rivals.latency, "distribution": rivals.distribution, "sizes": rivals.sizes, "labels": rivals.labels}
    return {name: _drawn(draw(named)) for name, draw in drawn.items()}


def _render(template: str, **view: Any) -> str:
    return _environment().get_template(template).render(view)


@cache
def _environment() -> Environment:
    folder = files("edgetune.report") / "templates"
    page = Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text("utf-8")),
        autoescape=True,
        undefined=ChainableUndefined,  # an older run's report may lack a key: it is shown as a dash
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= formats.FILTERS
    return page


def _drawn(svg: str) -> Markup:
    return Markup(svg)  # `plots` has escaped every text in it


def _in_scope(prepare: Facts, split: str) -> int:
    """Rows of `split` that the metrics count: all but those out of scope."""
    rows = prepare.get("rows", {}).get(split, 0)
    return int(rows - prepare.get("label_counts", {}).get(split, {}).get(prepare.get("out_of_scope"), 0))


def _steps(report: Facts, task: tasks.Task) -> list[tuple[str, list[float]]]:
    """The metric on test at each step that is known, worst to best effort; the bundles' is a list, one value a target."""
    adapt, merge = report.get("adapt") or {}, report.get("merge") or {}
    steps = [(formats.words(name), [metrics[task.metric]]) for name, metrics in adapt.get("baselines", {}).items()]
    for name, test in (("adapted", adapt.get("test")), ("checkpoint", merge.get("test"))):
        if test:
            steps.append((name, [test[task.metric]]))
    exported = [facts["quality"] for facts in (report.get("export") or {}).values()]
    return [*steps, ("in the bundle" if len(exported) == 1 else "in the bundles", exported)] if exported else steps


def _results(report: Facts, task: tasks.Task) -> list[tuple[str, float]]:
    """As `_steps`, each target on its own: the bars."""
    bars = [(name, values[0]) for name, values in _steps(report, task) if not name.startswith("in the bundle")]
    return bars + [(f"bundle {name}", facts["quality"]) for name, facts in (report.get("export") or {}).items()]


def _of_target(measured: Facts, name: str) -> Facts | None:
    return next((bundle for bundle in measured.get("bundles", ()) if bundle["target"] == name), None)


def _sensitivity(target: int, facts: Facts, metric: str) -> dict[str, Markup]:
    """For each candidate that needed layers in float: form and scheme, and the plot of what they cost."""
    found = {
        f"{one.get('form', 'whole')} {one['scheme']}": one["sensitivity"] for one in facts.get("candidates", ()) if one.get("sensitivity")
    }
    return {
        name: _drawn(plots.sensitivity(f"sensitivity-{target}-{number}", one, metric)) for number, (name, one) in enumerate(found.items())
    }


def _points(targets: Sequence[Facts]) -> list[plots.Point]:
    """Every candidate of every target; equal ones once, with the targets that ship it and their median latencies."""
    shipped: dict[tuple[str, int, float], list[str]] = defaultdict(list)
    for target in targets:
        for candidate in target["facts"].get("candidates", ()):
            if candidate.get("p50_ms") is not None:
                continue  # of a search, which has a plot of its own
            ships = shipped[candidate["scheme"], candidate["size_bytes"], candidate["quality"]]
            if candidate["passed"]:
                took = f" {formats.milliseconds(target['measured']['latency'][0]['p50_ms'])} ms" if target["measured"] else ""
                ships.append(f"{target['name']}{took}")
    return [plots.Point(scheme, size / 1e6, quality, tuple(ships)) for (scheme, size, quality), ships in shipped.items()]


def _searched(targets: Sequence[Facts]) -> list[plots.Searched]:
    """Every candidate of the searches, once: targets that share work have the same."""
    found: dict[tuple[str, str, int], plots.Searched] = {}
    for target in targets:
        for candidate in target["facts"].get("candidates", ()):
            if candidate.get("p50_ms") is None:
                continue
            key = candidate.get("form", "whole"), candidate["scheme"], candidate["size_bytes"]
            ships = candidate["passed"] or (key in found and found[key].ships)
            name = f"{key[0]} {key[1]}"
            refused = candidate["reason"].startswith("refused")
            found[key] = plots.Searched(name, key[2] / 1e6, candidate["p50_ms"], candidate["kl"], bool(ships), refused)
    return list(found.values())


def _kept(history: Sequence[Facts], task: tasks.Task) -> int | None:
    """The epoch whose weights were kept: the best metric, ties broken as training broke them."""
    sign = 1 if task.higher_is_better else -1
    best = max(history, key=lambda entry: (sign * entry[task.metric], entry.get("tie", 0.0)), default=None)
    return best["epoch"] if best else None


def _dropped(dropped: Sequence[Facts]) -> list[dict[str, Any]]:
    """Dropped rows by file and reason, most first, with the first row numbers."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in dropped:
        reason = "the same as an earlier row" if one["reason"].startswith(SAME_AS) else one["reason"]
        groups[one["file"], reason].append(one["row"])
    found = [
        {"file": file, "reason": reason, "count": len(rows), "rows": rows[:MOST_ROWS], "more": max(0, len(rows) - MOST_ROWS)}
        for (file, reason), rows in groups.items()
    ]
    return sorted(found, key=lambda group: -group["count"])


def _worst_first(per_label: Sequence[Facts]) -> list[dict[str, Any]]:
    """Labels by recall, then F1; those without a row in test last. `wrong` counts the rows that got another label."""
    rows = [{**one, "wrong": round(one["support"] * (1 - one["recall"]))} for one in per_label]
    return sorted(rows, key=lambda one: (one["support"] == 0, one["recall"], one["f1"]))


def _sure(adapt: Facts, targets: Sequence[Facts]) -> dict[str, Facts]:
    """Confidence facts of the adapted model and of each bundle."""
    found = {"adapted": adapt.get("confidence")} | {target["name"]: target["facts"].get("confidence") for target in targets}
    return {name: facts for name, facts in found.items() if facts}


def _stages(report: Facts) -> Iterator[tuple[str, Facts]]:
    """(name, facts) of every finished stage, in order; stages with parts give one each."""
    for stage in ("prepare", "adapt", "other_tests", "generated", "merge", "graph", "export", "benchmark"):
        facts = report.get(stage) or {}
        if stage in ("graph", "export"):
            yield from ((f"{stage} {part}", one) for part, one in facts.items())
        elif facts:
            yield stage, facts


def _tools(report: Facts) -> dict[str, dict[str, list[str]]]:
    """{tool: {version: stages that used it}}."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for stage, facts in _stages(report):
        for tool, version in facts.get("tools", {}).items():
            found[tool][version].append(stage)
    return found


def _flat(recipe: Facts) -> Iterator[tuple[str, Any]]:
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", item) for key, item in value.items())
        else:
            yield name, value


def _notes(report: Facts) -> Mapping[str, Sequence[str]]:
    return report.get("notes") or {}
