"""Several questions about a text, each with labels of its own. The labels are those of all tasks, as task:label, those of a task together."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Mapping  # noqa: UP035

import numpy as np

from .text_classification import SURE, chosen, read

__all__ = ["decode", "line", "read"]


def decode(bundle: Any, outputs: Mapping[str, np.ndarray], cut: bool) -> dict[str, Any]:
    """`tasks`: for each its `label` (None: too unsure), `confidence` and `scores` of its three best labels; `cut`."""
    labels = bundle.facts["labels"]
    trusts = (bundle.facts["confidence"] or {}).get("of_tasks")
    found = {}
    for t, (task, some) in enumerate(groupby(range(len(labels)), lambda i: labels[i].split(":", 1)[0])):
        own = list(some)
        names = [labels[i].split(":", 1)[1] for i in own]
        found[task] = chosen(outputs["logits"][0][own], names, trusts[t] if trusts else SURE)
    return {"tasks": found, "cut": cut}


def line(found: Mapping[str, Any]) -> str:
    return "\t".join(f"{task}: {one['label'] or '(no label)'} {one['confidence']:.3f}" for task, one in found["tasks"].items())
