"""The report's plots as inline SVG, drawn with matplotlib (imported only when there is something to draw).

Texts stay texts, in the page's own font; colours are CSS variables of the page, so that they follow light and dark. The same
numbers give the same bytes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from edgetune.report.formats import is_fraction, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LAYERS = 12  # bars of the costliest
LONGEST = 38, 72  # characters of a name beside a bar, and in a legend
WIDTH = 5.4  # inches: on a phone the letters are still of reading size
COLOURS = {
    "ink": "#101112",
    "muted": "#606162",
    "line": "#c0c1c2",
    "accent": "#1f6fb2",
    "second": "#c4620a",
}  # found again, and made variables
INK, MUTED, LINE, ACCENT, SECOND = COLOURS.values()
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.4,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


@dataclass(frozen=True)
class Point:
    """One candidate: its size in MB, its metric on validation, and the targets that ship it (with their latency)."""

    scheme: str
    size_mb: float
    quality: float
    shipped: tuple[str, ...]


@dataclass(frozen=True)
class Searched:
    """One candidate of the search: size in MB, median ms a pass, KL divergence from the float model in nats."""

    name: str
    size_mb: float
    p50_ms: float
    kl: float
    ships: bool
    refused: bool


def curves(history: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Loss in training, and on validation where the metrics have one, and `metric` on validation, by epoch; empty with fewer than two epochs."""
    if len(history) < 2:
        return ""
    epochs = [entry["epoch"] for entry in history]
    losses = [name for name in ("log_loss", "loss") if name in history[0]][:1]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True)
        upper.plot(epochs, [entry["train_loss"] for entry in history], color=SECOND, marker="o", markersize=3, label="training loss")
        for loss in losses:
            upper.plot(
                epochs, [entry[loss] for entry in history], color=ACCENT, marker="s", markersize=3, label=f"validation {words(loss)}"
            )
        upper.set_title("loss (nats)" if losses else "loss")
        upper.legend(fontsize=8.5)
        lower.plot(epochs, [shown(entry[metric], metric) for entry in history], color=ACCENT, marker="s", markersize=3)
        lower.set_title(f"validation {unit(metric)}")
        lower.set_xlabel("epoch")
        lower.xaxis.get_major_locator().set_params(integer=True)

    last = history[-1]
    told = (
        f"From epoch 1 to {last['epoch']}: training loss {history[0]['train_loss']:.3g} to {last['train_loss']:.3g}, validation "
        + ", ".join(f"{words(name)} {history[0][name]:.3g} to {last[name]:.3g}" for name in dict.fromkeys((*losses, metric)))
    )
    return svg("curves", f"Loss and validation {words(metric)} by epoch", told, 3.9, draw)


def bars(results: Sequence[tuple[str, float]], metric: str, higher_is_better: bool) -> str:
    """`metric` on test, one bar a name; empty with fewer than two."""
    if len(results) < 2:
        return ""
    names, values = [name for name, _ in results], [shown(value, metric) for _, value in results]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        colours = [ACCENT if name == "adapted" or name.startswith("bundle ") else MUTED for name in names]
        drawn = axes.barh(range(len(names)), values, color=colours, height=0.62)
        axes.bar_label(drawn, [numeral(value, metric) for value in values], padding=3, fontsize=8.5, color=INK)
        rows(axes, names)
        axes.set_title(f"test {unit(metric)}, {'higher' if higher_is_better else 'lower'} is better")
        axes.set_xlim(min(0, min(values) * 1.16), max(0, max(values) * 1.16) or 1)

    told = "; ".join(f"{name}: {numeral(value, metric)}" for name, value in zip(names, values, strict=True))
    return svg("result", f"Test {words(metric)} beside the baselines", told, 0.9 + 0.3 * len(names), draw)


def tradeoff(points: Sequence[Point], metric: str) -> str:
    """Size against `metric` on validation; filled points ship. Empty with fewer than two."""
    if len(points) < 2:
        return ""
    ordered = sorted(points, key=lambda point: (point.size_mb, point.quality))
    letters = [chr(ord("A") + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(len(ordered))]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for letter, point in zip(letters, ordered, strict=True):
            at = point.size_mb, shown(point.quality, metric)
            axes.plot(
                *at,
                "o",
                color=ACCENT,
                markersize=8,
                fillstyle="full" if point.shipped else "none",
                label=f"{letter}  {short(_caption(point), LONGEST[1])}",
            )
            axes.annotate(letter, at, xytext=(6, 5), textcoords="offset points")
        axes.set_xlim(0, max(point.size_mb for point in ordered) * 1.12)
        axes.margins(y=0.2)
        axes.set_xlabel("size (MB)")
        axes.set_title(f"validation {unit(metric)} against size; filled: ships")
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), handlelength=0, handletextpad=0, markerscale=0, fontsize=8.5)

    told = "; ".join(f"{_caption(p)}: {p.size_mb:.1f} MB, {numeral(shown(p.quality, metric), metric)}" for p in ordered)
    return svg("tradeoff", f"Size of each candidate against its {words(metric)} on validation", told, 2.9 + 0.2 * len(ordered), draw)


def pareto(found: Sequence[Searched]) -> str:
    """Size against time of every candidate of the search, on logarithmic axes; the line joins those that none beats in both. Empty with
    fewer than two."""
    if len(found) < 2:
        return ""
    ordered = sorted(found, key=lambda one: (one.size_mb, one.p50_ms))
    front: list[Searched] = []
    for one in ordered:
        if not one.refused and (not front or one.p50_ms < front[-1].p50_ms):
            front.append(one)

    def draw(figure: Figure) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes = figure.subplots()
        for one in ordered:
            style = "x" if one.refused else "o"
            fill = "full" if one.ships else "none"
            axes.plot(
                one.size_mb, one.p50_ms, style, color=MUTED if one.refused else ACCENT, markersize=8 if one.ships else 6, fillstyle=fill
            )
        axes.plot([one.size_mb for one in front], [one.p50_ms for one in front], color=ACCENT, linewidth=1, drawstyle="steps-post")
        for one in ordered:
            if one.ships:
                axes.annotate(one.name, (one.size_mb, one.p50_ms), xytext=(8, -4), textcoords="offset points")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("size (MB)")
        axes.set_title("median ms a pass against size; filled: ships, cross: refused")

    told = "; ".join(f"{one.name}: {one.size_mb:.1f} MB, {one.p50_ms:.2f} ms, KL {one.kl:.3f}" for one in ordered)
    return svg("pareto", "Time and size of every candidate of the search", told, 3.6, draw)


def sensitivity(name: str, found: Mapping[str, Any], metric: str) -> str:
    """What each layer costs in the scheme's integers, and `metric` on validation as the costliest go back to float, at their sizes; empty
    when nothing was measured. `name` tells several such plots of a page apart; `found` is what `quant.sensitivity.mend` noted."""
    layers, curve = found["layers"][:MOST_LAYERS], found["curve"]
    if not layers or not curve:
        return ""
    back = set(found["given_back"])
    named = [layer["layers"][0] + (f" and {len(layer['layers']) - 1} more" if len(layer["layers"]) > 1 else "") for layer in layers]

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, height_ratios=[0.5 + 0.26 * len(layers), 1.7])
        colours = [ACCENT if back.issuperset(layer["layers"]) else MUTED for layer in layers]
        drawn = upper.barh(range(len(layers)), [layer["kl"] for layer in layers], color=colours, height=0.62)
        upper.bar_label(drawn, [f"{layer['kl']:.2g}" for layer in layers], padding=3, fontsize=8.5, color=INK)
        rows(upper, named)
        upper.margins(x=0.16)
        upper.set_title("what one layer costs (KL, nats)")
        counts, values = [point["given_back"] for point in curve], [shown(point["quality"], metric) for point in curve]
        lower.plot(counts, values, color=ACCENT, marker="o", markersize=4)
        for point, value in zip(curve, values, strict=True):
            told = f"{point['size_bytes'] / 1e6:.1f} MB"
            lower.annotate(told, (point["given_back"], value), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8.5)
        lower.margins(x=0.12, y=0.3)
        lower.set_xticks(counts)
        lower.set_xlabel("layers back in float, the costliest first")
        lower.set_title(f"validation {unit(metric)}")

    told = (
        "; ".join(f"{layer}: {one['kl']:.3g} nats" for layer, one in zip(named, layers, strict=True))
        + ". "
        + "; ".join(
            f"{p['given_back']} back in float: {numeral(shown(p['quality'], metric), metric)}, {p['size_bytes'] / 1e6:.1f} MB"
            for p in curve
        )
    )
    return svg(name, "What each layer costs, and what giving it back to float gains", told, 2.7 + 0.26 * len(layers), draw)


def rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [short(name, LONGEST[0]) for name in names], color=INK)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def short(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 3]}..."


def _caption(point: Point) -> str:
    return f"{point.scheme}: {', '.join(point.shipped)}" if point.shipped else f"{point.scheme}: not shipped"


def shown(value: float, metric: str) -> float:
    return value * 100 if is_fraction(metric) else value


def unit(metric: str) -> str:
    return f"{words(metric)} (%)" if is_fraction(metric) else words(metric)


def numeral(shown: float, metric: str) -> str:
    return f"{shown:.1f} %" if is_fraction(metric) else f"{shown:.4g}"


def svg(name: str, title: str, told: str, height: float, draw: Callable[[Figure], None]) -> str:
    """What `draw` puts on a figure of WIDTH x `height` inches, as an `<svg>` with `title` and `told` for those who do not see it."""
    from io import StringIO

    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = StringIO()
    style: Any = {**STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's browser has the font
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        FigureCanvasSVG(figure).print_svg(drawn, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(drawn.getvalue(), name, title, told)


def _inline(drawn: str, name: str, title: str, told: str) -> str:
    """A stand-alone SVG as part of a page: no prologue, namespaces or fixed size; ids unique in the page; colours as variables."""
    drawn = drawn[drawn.index("<svg") :]
    size = re.search(r'viewBox="[^"]*"', drawn)
    assert size is not None
    head = (
        f'<svg {size.group()} role="img" aria-labelledby="{name}-title {name}-told">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-told">{escape(told)}</desc>'
    )
    body = drawn[drawn.index(">") + 1 :].strip()
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)  # it would rule the whole page
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r' id="[^"]*_\d+"', "", body)  # names of groups, the same in every plot; what is referred to has a hash
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for colour, value in COLOURS.items():
        body = body.replace(value, f"var(--{colour})")
    return head + body
