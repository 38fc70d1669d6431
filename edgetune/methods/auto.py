"""Which method fits: the first rule that holds, among the methods that can be used at all.

Where the numbers come from: docs/methods/auto.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgetune.errors import RecipeError
from edgetune.methods import METHODS
from edgetune.methods.memory import MB, TIGHT
from edgetune.tasks import Task

FEW = 16  # rows a label under which few-shot is ahead of full
SMALL = 150_000_000  # parameters up to which every weight is trained


@dataclass(frozen=True)
class Case:
    """What decides. `rows_a_label`, `fewest`: the median and the least over the labels of train, 0 where a row has no one label.
    `compares`: the base was trained to compare texts. `needs`: bytes that training takes, a method."""

    task: Task
    rows: int
    labels: int
    rows_a_label: float
    fewest: int
    pairs: bool
    parameters: int
    compares: bool
    has_head: bool
    teachers: int
    cuda: bool
    available: int
    needs: Mapping[str, int]

    def __str__(self) -> str:
        labels = f"{self.labels:,} labels with {self.rows_a_label:g} rows in the median" if self.rows_a_label else ""
        place = "GPU memory" if self.cuda else "RAM"
        facts = (f"{self.rows:,} rows", labels, f"{self.parameters / 1e6:,.1f} M parameters", f"{self.available / MB:,.0f} MB free {place}")
        return ", ".join(filter(None, facts))


@dataclass(frozen=True)
class Rule:
    method: str
    holds: Callable[[Case], bool]
    otherwise: str  # why not, where it does not hold
    why: str


RULES = (  # a method without one is for those who ask for it
    Rule("distillation", lambda case: case.teachers > 0, "no teacher is given (distillation.teacher)", "a teacher is given"),
    Rule(
        "few-shot",
        lambda case: 0 < case.rows_a_label < FEW and case.compares and not case.pairs,
        f"for under {FEW} rows a label, single texts, and a base that was trained to compare texts (sentence-transformers)",
        f"under {FEW} rows a label, pairs of texts teach more than the rows alone",
    ),
    Rule(
        "full",
        lambda case: case.task.family != "decoder" and case.parameters <= SMALL,
        f"for encoders and encoder-decoders of at most {SMALL / 1e6:g} M parameters",
        f"of at most {SMALL / 1e6:g} M parameters all are trained: the best result, and quick enough",
    ),
    Rule("lora", lambda case: True, "", "an adapter learns a large model, or a decoder, with little memory"),
    Rule("qlora", lambda case: True, "", "the GPU's memory does not hold the float model and its adapter"),
    Rule("head", lambda case: True, "", "memory is short: the base stays as it is"),
)


def choose(case: Case) -> tuple[str, str, dict[str, str]]:
    """(method, why, {method: why not} of those before it). Raises RecipeError when no method can be used."""
    passed: dict[str, str] = {}
    for rule in RULES:
        reason = hindrance(rule.method, case) or ("" if rule.holds(case) else rule.otherwise)
        if not reason:
            return rule.method, f"{case}: {rule.why}", passed
        passed[rule.method] = reason
    raise RecipeError(
        f"no method fits {case}",
        details=[f"{method}: {reason}" for method, reason in passed.items()],
        mend="a smaller model, a smaller adapt.batch_size or adapt.max_length; or name a method to try it all the same",
    )


def hindrance(name: str, case: Case) -> str:
    """Why the method cannot be used; empty when it can."""
    method = METHODS[name]
    if not method.fits(case.task):
        return f"not for {case.task.name}"
    if name == "head" and not case.has_head:
        return f"{case.task.name} has no head that could be trained alone"
    if case.rows_a_label and case.fewest < method.least_rows:
        return f"needs {method.least_rows} rows of each label, and one has {case.fewest}"
    if name == "qlora" and not case.cuda:
        return "for a GPU, and there is none"
    if case.needs[name] > TIGHT * case.available:
        return f"takes about {case.needs[name] / MB:,.0f} MB, and {case.available / MB:,.0f} MB are free"
    return ""
