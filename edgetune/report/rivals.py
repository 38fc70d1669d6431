"""The plots of a benchmark: latency by shape, its distribution, size against speed, and what changed label by label.

`named` are the entries of the schema "edgetune.benchmark/1" by the names that the page gives them (see `formats.entries`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetune.report.formats import milliseconds, words
from edgetune.report.plots import ACCENT, INK, LONGEST, MUTED, SECOND, numeral, rows, short, shown, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Named = Mapping[str, Mapping[str, Any]]
LINES = [(colour, dashes) for dashes in ("-", "--", ":") for colour in (ACCENT, SECOND, INK, MUTED)]
CHANGED = 12  # labels that are shown
KEPT = 20  # quantiles of a distribution: all but the last, which is the slowest pass


def latency(named: Named) -> str:
    """One panel a shape, one bar a bundle: the median with its 95 % interval, and p95 and p99 as ticks. Empty without a latency."""
    shapes = _shapes(named)
    if not shapes:
        return ""
    heights = [len(items) + 1.6 for items in shapes.values()]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shapes), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (shape, items) in zip(panels, shapes.items(), strict=True):
            _panel(axes, [(f"{name} {named[name]['scheme']}", item) for name, item in items])
            axes.set_title(f"{shape}: ms a pass")

    told = "; ".join(
        f"{shape}, {name}: median {milliseconds(item['p50_ms'])} ms, p95 {milliseconds(item['p95_ms'])} ms"
        for shape, items in shapes.items()
        for name, item in items
    )
    return svg("latency", "Latency of each bundle by batch and length", told, 0.27 * sum(heights), draw)


def distribution(named: Named) -> str:
    """One panel a shape, one line a bundle: the share of passes that took at most so long. Empty where no quantiles were kept."""
    shapes = {shape: kept for shape, items in _shapes(named).items() if (kept := [one for one in items if one[1].get("quantiles_ms")])}
    if not shapes:
        return ""
    style = dict(zip(named, LINES * (1 + len(named) // len(LINES)), strict=False))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(shapes), 1, squeeze=False)[:, 0]
        for axes, (shape, items) in zip(panels, shapes.items(), strict=True):
            for name, item in items:
                times = item["quantiles_ms"][:KEPT]
                colour, dashes = style[name]
                axes.plot(times, [5 * i for i in range(len(times))], color=colour, linestyle=dashes, label=short(name, LONGEST[1]))
            axes.set_title(f"{shape}: passes (%) by ms")
            axes.set_xlim(left=0)
        lowest = panels[-1]
        lowest.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), fontsize=8.5)

    told = "; ".join(
        f"{shape}, {name}: half within {milliseconds(item['quantiles_ms'][10])} ms, 95 % within {milliseconds(item['quantiles_ms'][19])} ms"
        for shape, items in shapes.items()
        for name, item in items
    )
    return svg("distribution", "How the times of the passes are distributed", told, 1.7 * len(shapes) + 0.4 + 0.2 * len(named), draw)


def sizes(named: Named) -> str:
    """Size against the median latency of the first shape; filled: beaten by none. Empty with fewer than two."""
    if len(named) < 2:
        return ""
    points = [(name, one["size_bytes"] / 1e6, one["latency"][0]["p50_ms"], one.get("quality")) for name, one in named.items()]
    points.sort(key=lambda point: (point[1], point[2]))
    letters = [chr(ord("A") + i % 26) + (str(i // 26) if i >= 26 else "") for i in range(len(points))]
    said = [f"{name}: {size:.1f} MB, {milliseconds(p50)} ms{_quality(quality)}" for name, size, p50, quality in points]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for letter, point, text in zip(letters, points, said, strict=True):
            best = not any(_beats(other, point) for other in points)
            style = "full" if best else "none"
            axes.plot(point[1], point[2], "o", color=ACCENT, markersize=8, fillstyle=style, label=f"{letter}  {short(text, LONGEST[1])}")
            axes.annotate(letter, point[1:3], xytext=(6, 5), textcoords="offset points")
        axes.set_xlim(0, max(point[1] for point in points) * 1.12)
        axes.set_ylim(0, max(point[2] for point in points) * 1.15)
        axes.set_xlabel("size (MB)")
        axes.set_title("median ms of a pass against size; filled: beaten by none")
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), handlelength=0, handletextpad=0, markerscale=0, fontsize=8.5)

    return svg("sizes", "Size, latency and quality of each", "; ".join(said), 2.9 + 0.2 * len(points), draw)


def labels(named: Named) -> str:
    """The change of recall of the labels that changed most, against the first; empty when none did, or nothing was scored by label."""
    scored = {name: one["quality"]["per_label"] for name, one in named.items() if (one.get("quality") or {}).get("per_label")}
    if len(scored) < 2:
        return ""
    (first, base), *others = scored.items()
    recall = {one["label"]: one["recall"] for one in base if one["support"]}
    changes = {
        name: {one["label"]: one["recall"] - recall[one["label"]] for one in found if one["label"] in recall} for name, found in others
    }
    changes = {name: change for name, change in changes.items() if any(change.values())}
    most = sorted(recall, key=lambda label: -max((abs(change.get(label, 0)) for change in changes.values()), default=0))[:CHANGED]
    if not changes:
        return ""

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(changes), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (name, change) in zip(panels, changes.items(), strict=True):
            values = [100 * change.get(label, 0) for label in most]
            axes.barh(range(len(most)), values, color=[ACCENT if value >= 0 else SECOND for value in values], height=0.62)
            axes.axvline(0, color=MUTED, linewidth=0.8)
            rows(axes, most)
            axes.set_title(f"{short(name, LONGEST[0])}: points of recall against {short(first, LONGEST[0])}")

    told = "; ".join(f"{name}, {label}: {100 * change.get(label, 0):+.1f} points" for name, change in changes.items() for label in most)
    return svg("labels", "Change of recall by label", told, len(changes) * (0.6 + 0.22 * len(most)), draw)


def _shapes(named: Named) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, one in named.items():
        for item in one.get("latency", ()):
            tokens = "real lengths" if item.get("lengths") == "real" else f"{item['sequence']} tokens"
            found.setdefault(f"batch {item['batch']}, {tokens}", []).append((name, item))
    return found


def _beats(other: Sequence[Any], point: Sequence[Any]) -> bool:
    """Whether `other` is as good in size, time and quality, and better in one."""
    pairs = [(other[1], point[1]), (other[2], point[2])]
    if other[3] and point[3]:
        sign = 1 if other[3]["metric"].endswith(("loss", "perplexity")) else -1
        pairs.append((sign * other[3]["value"], sign * point[3]["value"]))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def _quality(quality: Mapping[str, Any] | None) -> str:
    return f", {words(quality['metric'])} {numeral(shown(quality['value'], quality['metric']), quality['metric'])}" if quality else ""


def _panel(axes: Axes, items: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    for row, (_, item) in enumerate(items):
        middle = item["p50_ms"]
        low, high = item["ci95_ms"]
        axes.barh(row, middle, color=ACCENT, height=0.5)
        axes.plot([middle, item["p99_ms"]], [row, row], color=MUTED, linewidth=0.8)
        axes.plot([low, high], [row, row], color=INK, linewidth=2.2)
        axes.plot([item["p95_ms"], item["p99_ms"]], [row, row], "|", color=MUTED, markersize=7)
    rows(axes, [name for name, _ in items])
    axes.set_xlim(left=0)
