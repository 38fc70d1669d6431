"""What the terminal shows of a run's report.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.cli.output import duration, number, size, table

if TYPE_CHECKING:
    from rich.table import Table

Report = Mapping[str, Any]
SHOWN, CELL = 3, 60  # generated answers that the terminal shows, and characters of each


def read(run: Path) -> dict[str, Any]:
    path = run / "report.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return found


def part(facts: Report, name: str) -> dict[str, Any]:
    return dict(facts.get(name) or {})


def scalars(tree: Report, prefix: str = "") -> dict[str, str]:
    """The values of `tree` that fit on a line, those inside it with their path."""
    found: dict[str, str] = {}
    for name, value in tree.items():
        words = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found |= scalars(value, f"{words} ")
        elif isinstance(value, float):
            found[words] = f"{value:.4g}"
        elif isinstance(value, str | int):
            found[words] = str(value)
    return found


def trained(run: Path, facts: Report) -> Iterable[Table | str]:
    """All that there is to show of a model that was adapted, before its export."""
    for shown in (begun, adapted, continued, other_tests):
        yield from shown(facts)
    yield from generated(run, facts)


def adapted(facts: Report) -> Iterable[Table | str]:
    """Test metrics of the adapted model beside those of the baselines, and what they cost."""
    found = part(facts, "adapt")
    test = found.get("test") or {}
    if not test:
        return
    if auto := part(facts, "auto"):
        yield f"method: {auto['method']} (auto: {auto['why']})"
    before = found.get("baselines") or {}
    noisy = part(found, "noisy_test")
    columns = {
        "adapted": test,
        **({f"with {noisy['kind']}": noisy["metrics"]} if noisy else {}),
        **{name.replace("_", " "): metrics for name, metrics in before.items()},
        "on validation": found.get("validation") or {},
    }
    rows = [(metric, *(number(metrics.get(metric)) for metrics in columns.values())) for metric in test]
    yield table(rows, "test", *columns, title="adapted", right=columns)
    cost = [
        duration(found.get("seconds")),
        f"peak memory {size(found.get('peak_rss_bytes'))}",
        *filter(None, (found.get("device"), found.get("precision"))),
    ]
    yield ", ".join(cost)
    yield from _trials(found)


def _trials(adapted: Report) -> Iterable[Table | str]:
    """What a search tried, and what it gained."""
    found = part(adapted, "search")
    if not found:
        return
    metric, keys, kept = found["metric"], found["keys"], found["kept"]
    rows = [
        (
            f"{'> ' if one['trial'] == kept else '  '}{one['trial'] + 1}",
            *(f"{one['settings'][key]:.3g}" for key in keys),
            number(one["value"]),
            f"{len(one['epochs'])} of {one['length']}",
            one["state"] + (" (the defaults)" if one["trial"] == 0 else ""),
        )
        for one in found["trials"]
    ]
    names = [key.rpartition(".")[2].replace("_", " ") for key in keys]
    columns = ("trial", *names, f"validation {metric.replace('_', ' ')}", "epochs run", "outcome")
    yield table(rows, *columns, title="search, on validation", right=columns[1:-1])
    default = found.get("test_of_defaults")
    if default:
        yield f"test {metric.replace('_', ' ')}: {number(adapted['test'][metric])} with trial {kept + 1}, {number(default[metric])} with the defaults"
    elif kept == 0:
        yield "nothing beats the defaults: they are kept"


def begun(facts: Report) -> Iterable[str]:
    """Where training started, when that was another run's model."""
    if found := part(facts, "start"):
        head = "its head stayed" if found["head"] == "kept" else "with a new head"
        yield f"started from {found['run']}: {found['task']} ({found['method']}) on {found['model']}, {head}"


def continued(facts: Report) -> Iterable[Table | str]:
    """What became of the test rows of the run that was continued, and how the new rows did."""
    found = part(part(facts, "adapt"), "continual")
    if not found:
        return
    test, rows, changed = part(facts, "adapt")["test"], found["rows"], found["difference"]
    columns = ("old rows before", "after", "new rows", "all rows")
    shown = [(name, *(number(part.get(name)) for part in (found["before"], found["after"], found["new"], test))) for name in test]
    yield table(shown, "test", *columns, title=f"continued from {found['run']}", right=columns)
    said = f"{rows['old']:,} old test rows, {rows['new']:,} new"
    if changed:
        name = recipe_metric(facts)
        flips = changed.get("flips")
        said += f"; {name} of the old ones {changed['value']:+.4f} (95 % {span(changed['ci95'], '+.4f')})"
        said += f", {flips['right_to_wrong']} right answers lost, {flips['wrong_to_right']} gained" if flips else ""
    yield said


def other_tests(facts: Report) -> Iterable[Table | str]:
    """The model on further test sets, under its own test rows."""
    sets = part(part(facts, "other_tests"), "sets")
    if not sets:
        return
    name = recipe_metric(facts)
    model = part(facts, "adapt") or part(facts, "merge")
    own = {"rows": facts["prepare"]["rows"]["test"], "value": part(model, "test").get(name), "tokens": model.get("tokens")}
    compared = "test" in sets
    rows = []
    for each, one in {"test": own, **sets}.items():
        cells = [each, f"{one['rows']:,}", number(one["value"]), span(one["ci95"], ".4f") if one.get("ci95") else ""]
        if compared:
            plain = one["source_only"]
            cells += [number(plain["metrics"][name]), f"{plain['difference']['value']:+.4f} ({span(plain['difference']['ci95'], '+.4f')})"]
        tokens = one.get("tokens") or {}
        rows.append([*cells, f"{tokens['unknown']:.1%}" if tokens else None, number(tokens.get("a_word"), 2)])
    beside = ("source-only", "difference (95 %)") if compared else ()
    columns = ("rows", name.replace("_", " "), "95 % interval", *beside, "unknown tokens", "tokens a word")
    yield table(rows, "test set", *columns, title="other tests", right=columns)


def recipe_metric(facts: Report) -> str:
    """The metric that the run's task is judged by."""
    from edgetune import tasks

    return tasks.get(facts["recipe"]["task"]).metric


def generated(run: Path, facts: Report) -> Iterable[Table | str]:
    """How good the texts are that the model writes, beside those of others, and a few of them."""
    found = part(facts, "generated")
    writers = {name: metrics for name, metrics in found.items() if isinstance(metrics, Mapping) and "chrf" in metrics}
    if not writers:
        return
    rows = [(metric, *(number(metrics[metric]) for metrics in writers.values())) for metric in next(iter(writers.values()))]
    title = f"answers to {found['rows']} of {found['of']} test rows, of at most {found['max_new_tokens']} tokens"
    yield table(rows, "generated", *writers, title=title, right=writers)
    path = run / "generated" / "answers.jsonl"
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            shown = [json.loads(line) for line in islice(file, SHOWN)]
        columns = [name for name in ("prompt", "reference", "untrained", "adapted") if name in shown[0]]
        yield table([[_short(row[name]) for name in columns] for row in shown], *columns)
        yield f"all of them: {path}"


def _short(text: str) -> str:
    """The start of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= CELL else f"{line[: CELL - 3]}..."


def exported(facts: Report) -> Iterable[Table]:
    """One table a target: what was tried, what was chosen, and why the others were not."""
    for name, found in part(facts, "export").items():
        if not isinstance(found, Mapping) or "candidates" not in found:
            continue
        if any(c.get("p50_ms") for c in found["candidates"]):
            yield _searched(name, found)
            continue
        rows = [
            (
                f"{'> ' if c.get('scheme') == found.get('scheme') else '  '}{c.get('scheme')}",
                size(c.get("size_bytes")),
                number(c.get("quality")),
                number(c.get("drop")),
                number(c.get("bound")),
                c.get("reason") or ("passed" if c.get("passed") else "refused"),
            )
            for c in found["candidates"]
        ]
        title = (
            f"{name}: {found.get('scheme')}, {size(found.get('size_bytes'))}, test {number(found.get('quality'))} "
            f"(float {number(found.get('baseline'))}, drop {number(found.get('drop'))})"
        )
        yield table(
            rows,
            "scheme",
            "size",
            "validation",
            "drop",
            "95 % bound",
            "verdict",
            title=title,
            right=("size", "validation", "drop", "95 % bound"),
        )


def _searched(name: str, found: Report) -> Table:
    """The candidates that none beats, smallest first; the report has all."""
    shown = [c for c in found["candidates"] if not c["reason"].startswith("beaten")]
    rows = [
        (
            f"{'> ' if c['passed'] else '  '}{c['form']} {c['scheme']}",
            size(c["size_bytes"]),
            number(c["p50_ms"], 2),
            number(c["drop"]),
            number(c["bound"]),
            c["reason"],
        )
        for c in sorted(shown, key=lambda c: c["size_bytes"])
    ]
    title = (
        f"{name}: {found['form']} {found['scheme']}, {size(found['size_bytes'])}, test {number(found['quality'])} "
        f"(float {number(found['baseline'])}, drop {number(found['drop'])}); "
        f"{len(found['candidates']) - len(shown)} more candidates are beaten in size, time and agreement at once"
    )
    return table(rows, "candidate", "size", "ms", "drop", "95 % bound", "verdict", title=title, right=("size", "ms", "drop", "95 % bound"))


def benchmarked(measured: Report) -> Iterable[Table | str]:
    """`edgetune.benchmark/1` as two tables: one line a bundle, and one line a bundle, batch and length."""
    from edgetune.report.formats import entries

    named = entries(measured.get("bundles", ()))
    if not named:
        return
    costs, times, notes = [], [], []
    for name, bundle in named.items():
        quality = bundle.get("quality") or {}
        difference = quality.get("difference") or {}
        costs.append(
            (
                name,
                bundle["scheme"],
                size(bundle["size_bytes"]),
                size(bundle.get("download_bytes")),
                size(bundle["peak_rss_bytes"]),
                number(bundle["load_ms"], 0),
                number(bundle.get("cold_start_ms"), 0),
                number(quality.get("value")),
                f"{difference['value']:+.4f} ({span(difference['ci95'], '+.4f')})" if difference else "-",
            )
        )
        for latency in bundle["latency"]:
            ratio = latency.get("ratio")
            times.append(
                (
                    name,
                    f"{latency['batch']} x {latency['sequence']}{' (real)' if latency.get('lengths') == 'real' else ''}",
                    number(latency["p50_ms"], 2),
                    span(latency["ci95_ms"], ".2f"),
                    number(latency["p95_ms"], 2),
                    number(latency["p99_ms"], 2),
                    latency["runs"],
                    number(latency.get("text_p50_ms"), 2),
                    f"{ratio['value']:.2f} ({span(ratio['ci95'], '.2f')})" if ratio else "-",
                )
            )
        if bundle.get("decode_tokens_per_s"):
            notes.append(f"{name}: writes {bundle['decode_tokens_per_s']:.0f} tokens a second")
        if bundle.get("note"):
            notes.append(f"{name}: {bundle['note']}")
        if not all(latency.get("steady", True) for latency in bundle["latency"]):
            notes.append(f"{name}: still became faster when its warm-up was over")
    columns = ("bundle", "scheme", "size", "download", "memory", "load ms", "cold start ms", "quality", "to the first")
    yield table(costs, *columns, title="benchmark", right=columns[2:])
    columns = ("bundle", "batch x tokens", "p50 ms", "95 % interval", "p95 ms", "p99 ms", "runs", "from text ms", "ratio to the first")
    yield table(times, *columns, title="latency", right=columns[1:])
    written = {name: bundle["generated"] for name, bundle in named.items() if bundle.get("generated")}
    if written:
        found = next(iter(written.values()))
        rows = [(name, *(number(value) for value in metrics.values() if isinstance(value, float))) for name, metrics in written.items()]
        metrics = [name for name, value in found.items() if isinstance(value, float)]
        title = f"answers to {found['rows']} of {found['of']} rows, of at most {found['max_new_tokens']} tokens"
        yield table(rows, "generated", *metrics, title=title, right=metrics)
    first, here = measured["bundles"][0], measured.get("machine") or {}
    disturbed = "; the machine was disturbed: trust the ratios, not the times" if here.get("disturbed") else ""
    yield f"{machine(here)}, {first['provider']}, {first['threads']} thread(s); p50 is the median{disturbed}"
    yield from notes


def span(bounds: Iterable[float], form: str) -> str:
    """[0.1, 0.2] -> '0.10 .. 0.20'."""
    return " .. ".join(format(bound, form) for bound in bounds)


def machine(facts: Report) -> str:
    """The machine in one line."""
    return ", ".join(str(facts[name]) for name in ("cpu", "architecture", "os") if facts.get(name)) or "this machine"


def bundles(run: Path, facts: Report, targets: str | None = None) -> list[Path]:
    """The bundles that the report speaks of, in its order; with `targets` (names or files, comma-separated) only those."""
    wanted = [Path(name).stem if name.endswith(".toml") else name for name in targets.split(",")] if targets else None
    names = [name for name in part(facts, "export") if wanted is None or name in wanted]
    return [run / "bundles" / name for name in names if (run / "bundles" / name).is_dir()]


def suggested_target() -> str:
    """The target of this machine, for the hints."""
    from edgetune import target
    from edgetune.errors import TargetError

    try:
        return target.detect()
    except TargetError:
        return target.names()[0]
