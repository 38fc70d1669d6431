"""Making the model itself smaller, before it is quantised: which sizes there are to try."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.sections import CompressKeys

WHOLE = "whole"
VOCABULARY = 8000  # entries that the search keeps, where nothing was asked
# What the search tries: shares of the layers and of the feed-forward width, the largest first.
LADDER = ((1.0, 1.0), (1 / 2, 1.0), (1 / 2, 1 / 2), (1 / 3, 1 / 2), (1 / 6, 1 / 2))


@dataclass(frozen=True)
class Size:
    """How large the model shall be; 0 leaves a part as it is. `at_least_spelling`: more entries are kept where words could not be spelt."""

    vocabulary: int = 0
    layers: int = 0
    feed_forward: int = 0
    at_least_spelling: bool = False

    @property
    def name(self) -> str:
        parts = ((self.layers, "layer" if self.layers == 1 else "layers"), (self.feed_forward, "wide"), (self.vocabulary, "entries"))
        return "-".join(f"{number}{what}" for number, what in parts if number) or WHOLE

    @property
    def learns(self) -> bool:
        """True when there is something to distil: dropping entries alone changes no answer on known words."""
        return bool(self.layers or self.feed_forward)


def sizes(keys: CompressKeys, fit: bool, layers: int, feed_forward: int, entries: int) -> tuple[Size, ...]:
    """The sizes to build, the largest first; the model as it is when nothing else was asked.

    `layers`, `feed_forward`, `entries`: those of the adapted model. What the recipe names is fixed; with `fit` the rest is tried.
    """
    fixed = {name: value for name in ("vocabulary", "layers", "feed_forward") if (value := getattr(keys, name)) is not None}
    if not fit:
        return (Size(**fixed),)
    vocabulary = VOCABULARY if entries > VOCABULARY else 0
    found = [Size()] if not any(fixed.values()) else []
    for depth, width in LADDER:
        kept = max(1, round(depth * layers))
        size = {
            "vocabulary": vocabulary,
            "layers": kept if kept < layers else 0,
            "feed_forward": round(width * feed_forward) if width < 1 else 0,
            "at_least_spelling": "vocabulary" not in fixed,
        }
        found.append(Size(**{**size, **fixed}))
    return tuple(dict.fromkeys(found))
