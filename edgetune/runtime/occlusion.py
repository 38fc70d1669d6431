"""What each word of a text adds to an answer of a bundle: the text is asked again without it (Zeiler and Fergus, arXiv:1311.2901, section 4.2).

It explains the very model that ships, quantised as it is, at a pass a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune import tasks
from edgetune.tasks import attribution

if TYPE_CHECKING:
    from edgetune.runtime.worker import Bundle


def explain(bundle: Bundle, given: Any, label: str | None = None) -> attribution.Explanation:
    """The score of `label` (none: the likeliest), and for each word the score less that of the text without it.

    Raises RequestError, and BundleError for a text that the bundle does not take.
    """
    task = bundle.facts["task"]
    kind, known = attribution.kind(task), attribution.names(task, bundle.facts["labels"])
    index = attribution.place(label, known)
    item = bundle.item(given)
    words = attribution.words(item, tasks.get(task).markers)
    logits = _logits(bundle, item)
    index = int(logits.argmax()) if index is None else index
    score = float(attribution.score(logits, index, kind))
    left = [float(attribution.score(_logits(bundle, attribution.without(item, word)), index, kind)) for word in words]
    found = tuple(replace(word, attribution=score - other) for word, other in zip(words, left, strict=True))
    return attribution.Explanation(known[index] if known else None, score, "occlusion", found, bool(bundle.tokenized(item)[1].overflowing))


def _logits(bundle: Bundle, item: Mapping[str, str]) -> np.ndarray:
    """[classes] float64, as `predict` has them."""
    rows, _ = bundle.read(item)
    return bundle.alone(rows)["logits"][0].astype(np.float64)
