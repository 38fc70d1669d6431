"""The rules that choose a method: each holds where it should, and says why; what cannot be used is never chosen."""

from __future__ import annotations

from typing import Any

import pytest

from edgetune import tasks
from edgetune.errors import RecipeError
from edgetune.methods import METHODS, auto
from edgetune.methods.memory import MB

GB = 1 << 30
PLAIN: dict[str, Any] = {
    "task": "text-classification",
    "rows": 10_003,
    "labels": 77,
    "rows_a_label": 130,
    "fewest": 35,
    "pairs": False,
    "parameters": 22_700_000,
    "compares": True,
    "has_head": True,
    "teachers": 0,
    "cuda": False,
    "available": 16 * GB,
    "needs": {
        **dict.fromkeys(METHODS, 0.4 * GB),
        "full": 0.4 * GB,
        "head": 0.1 * GB,
        "few-shot": 0.4 * GB,
        "distillation": 0.4 * GB,
        "lora": 0.2 * GB,
        "qlora": 0.15 * GB,
    },
}


def case(**changes: Any) -> auto.Case:
    keys = {**PLAIN, **changes}
    return auto.Case(**{**keys, "task": tasks.get(keys["task"])})


WRITES: dict[str, Any] = {
    "task": "text-generation",
    "labels": 0,
    "rows_a_label": 0,
    "fewest": 0,
    "has_head": False,
    "parameters": 135_000_000,
}
LARGE = {"parameters": 7_000_000_000, "needs": {"full": 112 * GB, "lora": 30 * GB, "qlora": 6 * GB, "head": 28 * GB, "few-shot": 112 * GB}}


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, "full"),
        ({"teachers": 1, "rows_a_label": 8, "fewest": 8}, "distillation"),
        ({"rows_a_label": 8, "fewest": 8}, "few-shot"),
        ({"rows_a_label": 15.5, "fewest": 2}, "few-shot"),
        ({"rows_a_label": 16, "fewest": 16}, "full"),
        ({"rows_a_label": 8, "fewest": 1}, "full"),
        ({"rows_a_label": 8, "fewest": 8, "pairs": True}, "full"),
        ({"rows_a_label": 8, "fewest": 8, "compares": False}, "full"),
        ({"task": "token-classification", "rows_a_label": 0, "fewest": 0}, "full"),
        ({"parameters": 150_000_000}, "full"),
        ({"parameters": 150_000_001}, "lora"),
        ({"available": 0.3 * GB}, "lora"),
        ({"available": 0.15 * GB}, "head"),
        (WRITES, "lora"),
        ({**WRITES, "task": "text2text-generation"}, "full"),
        ({**WRITES, "task": "text2text-generation", "parameters": 770_000_000}, "lora"),
        ({**WRITES, **LARGE, "cuda": True, "available": 24 * GB}, "qlora"),
        ({**WRITES, **LARGE, "cuda": True, "available": 80 * GB}, "lora"),
    ],
)
def test_what_is_chosen(changes: dict[str, Any], method: str) -> None:
    chosen, why, passed = auto.choose(case(**changes))
    assert chosen == method
    assert why.startswith(str(case(**changes)))
    order = [rule.method for rule in auto.RULES]
    assert list(passed) == order[: order.index(method)]
    assert all(passed.values()), "each method that comes before says why not"


def test_why_in_words() -> None:
    _, why, passed = auto.choose(case())
    assert why == (
        "10,003 rows, 77 labels with 130 rows in the median, 22.7 M parameters, 16,384 MB free RAM: "
        "of at most 150 M parameters all are trained: the best result, and quick enough"
    )
    assert passed["few-shot"].startswith("for under 16 rows a label")


def test_nothing_fits() -> None:
    """Each method with its own reason."""
    with pytest.raises(RecipeError, match="no method fits") as raised:
        auto.choose(case(available=100 * MB, needs=dict.fromkeys(METHODS, 10 * GB), has_head=False))
    details = dict(detail.split(": ", 1) for detail in raised.value.details)
    assert details.keys() == {rule.method for rule in auto.RULES}
    assert details["full"] == "takes about 10,240 MB, and 100 MB are free"
    assert details["qlora"] == "for a GPU, and there is none"
    assert "no head" in details["head"]
    assert raised.value.mend


def test_every_rule_has_a_method() -> None:
    """Methods without a rule are for those who ask for them."""
    assert len(auto.RULES) == len({rule.method for rule in auto.RULES} & METHODS.keys())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_never_used_where_it_does_not_fit(name: str) -> None:
    for task in tasks.TASKS.values():
        assert bool(auto.hindrance(name, case(task=task.name, cuda=True))) == (not METHODS[name].fits(task))
