"""Numbers as the report's page writes them: the rounded text for people, the exact value in `<data value>` for programs.

A value that is not there is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

NONE = "-"
NAMES = {
    "macro_f1": "macro F1",
    "f1": "F1",
    "worst_recall": "worst label's recall",
    "untrained": "before (untrained)",
    "micro_f1": "micro F1",
    "recall_at_1": "recall at 1",
    "recall_at_10": "recall at 10",
    "frozen_logistic_regression": "simple baseline",
    "zero_shot": "names of the labels alone",
    "frozen_logistic_regression_a_label": "simple baseline",
    "frozen_ridge_regression": "simple baseline",
    "shared_words": "shared words alone",
    "sliding_window": "sliding window, no model",
    "chrf": "chrF",
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "lead": "first words of the prompt",
    "commonest": "commonest answer of train",
}


def words(name: str) -> str:
    """A key as people write it: "log_loss" -> "log loss"."""
    return NAMES.get(name, str(name).replace("_", " "))


def is_fraction(metric: str) -> bool:
    return not metric.endswith(("loss", "perplexity", "absolute_error", "squared_error"))


def milliseconds(value: float) -> str:
    """Three significant digits, at most three decimals: 0.852, 8.30, 83.0, 1234."""
    places = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:.{min(3, max(0, places))}f}"


def entries(bundles: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """What was measured, by the shortest names that differ: the target, else the path; with the threads where they differ."""
    targets = {(bundle["target"], bundle["path"]) for bundle in bundles}
    twice = {name for name, _ in targets if sum(name == other for other, _ in targets) > 1}
    grid = len({bundle["threads"] for bundle in bundles}) > 1
    found: dict[str, Mapping[str, Any]] = {}
    for bundle in bundles:
        name = bundle["path"] if bundle["target"] in twice else bundle["target"]
        name += f", {bundle['threads']} thread{'' if bundle['threads'] == 1 else 's'}" if grid else ""
        found[name if name not in found else f"{name} ({len(found) + 1})"] = bundle
    return found


def _tag(value: Any, text: str) -> Markup:
    return Markup('<data value="{}">{}</data>').format(value, text)


def _absent(value: Any) -> bool:
    return value is None or isinstance(value, Undefined)


def _plain(write: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: NONE if _absent(value) else _tag(value, write(value))


def duration(seconds: float) -> str:
    """75.2 -> "1 min 15 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


@pass_context
def score(context: Context, value: Any, metric: str) -> str:
    """A metric: fractions in percent, with as many decimals as the number of rows is worth; losses and perplexity as they are."""
    if _absent(value):
        return NONE
    return _tag(value, f"{value * 100:.{context['digits']}f} %" if is_fraction(metric) else f"{value:.4g}")


@pass_context
def interval(context: Context, bounds: Any, metric: str) -> str:
    """[low, high] of a metric: "81.8 % to 91.6 %"."""
    return NONE if _absent(bounds) else Markup(" to ").join(score(context, bound, metric) for bound in bounds)


def change(value: Any, metric: str) -> str:
    """What was lost: percentage points of a fraction, percent of a perplexity; a gain has a minus."""
    if _absent(value):
        return NONE
    return _tag(value, f"{value * 100 + 0.0:.2f} {'points' if is_fraction(metric) else '%'}".replace("-0.00 ", "0.00 "))


def span_ms(bounds: Any) -> str:
    """[low, high] in ms: "0.834 to 0.885"."""
    return NONE if _absent(bounds) else Markup(" to ").join(_tag(bound, milliseconds(bound)) for bound in bounds)


def times(ratio: Any) -> str:
    """A ratio and its interval: "0.25 (0.24 to 0.27)"."""
    if _absent(ratio):
        return NONE
    low, high = ratio["ci95"]
    return Markup("{} ({} to {})").format(*(_tag(value, f"{value:.2f}") for value in (ratio["value"], low, high)))


def number(value: Any) -> str:
    """Three significant digits of a float; whole numbers and words as they are."""
    if _absent(value) or isinstance(value, str):
        return value if isinstance(value, str) else NONE
    return _tag(value, f"{value:.3g}" if isinstance(value, float) else str(value))


def many(value: Any, one: str) -> str:
    """A count with its noun: "1 row", "1,024 rows"."""
    return NONE if _absent(value) else _tag(value, f"{value:,} {one}{'' if value == 1 else 's'}")


def setting(value: Any) -> str:
    """A value of the recipe, as TOML has it."""
    if value is None or value == "" or value == []:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "words": words,
    "entries": entries,
    "score": score,
    "interval": interval,
    "change": change,
    "span_ms": span_ms,
    "times": times,
    "many": many,
    "setting": setting,
    "count": _plain(lambda value: f"{value:,}"),
    "percent": _plain(lambda value: f"{value * 100:.1f} %"),
    "share": _plain(lambda value: f"{value * 100:.0f} %"),
    "fixed": _plain(lambda value: f"{value:.3f}"),
    "mb": _plain(lambda value: f"{value / 1e6:,.1f} MB"),
    "gb": _plain(lambda value: f"{value / 1e9:,.1f} GB"),
    "ms": _plain(milliseconds),
    "number": number,
    "seconds": _plain(duration),
}
