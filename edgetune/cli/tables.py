"""`edgetune methods` and `edgetune tasks`: what there is, and when to use which."""

from __future__ import annotations

from dataclasses import asdict


def methods() -> None:
    from edgetune.cli.output import out, table
    from edgetune.methods import METHODS

    rows = [(m.name, m.title, m.when, ", ".join(m.defaults)) for m in METHODS.values()]
    data = [
        {"name": m.name, "title": m.title, "when": m.when, "defaults": {family: asdict(d) for family, d in m.defaults.items()}}
        for m in METHODS.values()
    ]
    out.result(data, table(rows, "method", "what it does", "when to use it", "models"), quiet=METHODS)
    out.hint("edgetune adapt --method NAME ...", "use one; auto: one that fits")


def tasks() -> None:
    from edgetune.cli.output import out, table
    from edgetune.tasks import TASKS

    rows = [(t.name, t.title, t.metric, t.example) for t in TASKS.values()]
    data = [
        {
            "name": t.name,
            "title": t.title,
            "family": t.family,
            "metric": t.metric,
            "columns": {column: list(names) for column, names in t.columns.items()},
            "example": t.example,
        }
        for t in TASKS.values()
    ]
    out.result(data, table(rows, "task", "what is learned", "metric", "one row of data"), quiet=TASKS)
    out.hint("edgetune data check DATA --task NAME", "check your data")
