"""The search for the best artefact: forms of the model x schemes, in rounds that cost more and keep fewer.

Round 1, all: size, time of a few passes, and agreement with the float model on 200 rows. What another beats in all three leaves.
Round 2, the rest: the gate on one half of validation. Round 3, in order of median time x size: the gate on the other half, which no
choice was made on, on the harder rows, and on both halves with a standard error to spare. The first that holds ships.
(Successive halving: Jamieson & Talwalkar, arXiv:1502.07943.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgetune import progress, quant
from edgetune.fit import gate
from edgetune.fit.candidates import Asked, Candidate, make, scored
from edgetune.fit.rapid import times
from edgetune.tasks import Scores

PROBE = 200  # rows of round 1
HOPELESS = 3.0  # standard errors over the allowed loss on those rows
TIE = 0.03  # times that differ by less are the same
HARDER = ("typos", "unseen")
UNLIKELY = "not likely enough"


@dataclass(frozen=True)
class Form:
    """The adapted model as it is, or made smaller: its float graph, and the rows as its own tokenizer cuts them.

    `asked.examples` holds probe, choose, prove, test and, where there are such rows, the harder ones.
    """

    name: str
    graph: Path
    asked: Asked


@dataclass(frozen=True)
class Found:
    """A candidate with what the rounds measured. `kl`: mean KL divergence from the float model on the probe; `loss`: on the first half."""

    candidate: Candidate
    p50_ms: float
    kl: float
    loss: float | None = None
    verdicts: Mapping[str, gate.Verdict] | None = None
    reason: str = ""

    @property
    def cost(self) -> float:
        return self.p50_ms * self.candidate.size_bytes


def search(
    forms: Sequence[Form], schemes: Sequence[str], work: Path, lengths: Sequence[int], *, here: bool, latency_ms: float | None, fit: bool
) -> tuple[Candidate, list[Found]]:
    """(the float model, every candidate: the chosen one is marked, and scored on test, as the float model is).

    `forms`: the model as it is comes first. `lengths`: token counts to time. `here`: this machine is the target; then a time over `latency_ms` is
    refused, and so is a candidate that is slower than the float model. Elsewhere times only rank. Without `fit` the form was asked for: the model
    as it is is only compared with.
    """
    whole = forms[0]
    base = scored(
        make(whole.graph, quant.get("fp32"), whole.asked, work), whole.asked, ("probe", "choose", "prove", *_harder(whole), "test")
    )
    asked = {form.name: form.asked for form in forms}
    found = _first_round(forms, schemes, base, work, lengths)
    slowest = next(f.p50_ms for f in found if f.candidate.form == whole.name and f.candidate.scheme.name == "fp32")
    if not fit:
        found = [f for f in found if f.candidate.form != whole.name]
    found = [_refused(f, base, whole.asked, slowest if here else None, latency_ms if here else None) for f in found]
    found = _without_beaten(found)
    found = [f if f.reason else _second_round(f, base, asked[f.candidate.form]) for f in found]
    for at in sorted((i for i, f in enumerate(found) if not f.reason), key=lambda i: found[i].cost):
        found[at] = judged = _third_round(found[at], base, asked[found[at].candidate.form])
        progress.note(f"{_named(judged)}: {judged.candidate.size_bytes / 1e6:.1f} MB, {judged.p50_ms:.2f} ms, {judged.reason}")
        if judged.candidate.chosen:
            break
    found = _at_least_one(found, whole.asked.strict)
    found = _no_worse_than_first(found, base, whole, schemes) if fit else found
    found = [f if f.reason else replace(f, reason="not needed: a smaller and faster one was chosen") for f in found]
    found = [_on_test(f, asked[f.candidate.form]) if f.candidate.chosen else f for f in found]
    return base, found


def as_facts(found: Found, asked: Asked) -> dict[str, Any]:
    """A candidate as a row of the report; `quality` is the metric on the first half of validation, where the candidate came so far."""
    reached = found.candidate.scores.get("choose")
    metrics = asked.task.module.metrics(reached, asked.labels) if reached is not None else {}
    bounds = {name: asdict(verdict) for name, verdict in (found.verdicts or {}).items()}
    return {
        "form": found.candidate.form,
        "scheme": found.candidate.scheme.name,
        "size_bytes": found.candidate.size_bytes,
        "p50_ms": found.p50_ms,
        "kl": found.kl,
        "quality": metrics.get(asked.task.metric),
        "validation": metrics,
        "drop": found.loss,
        "bound": bounds.get("prove", bounds.get("choose", {})).get("bound"),
        "verdicts": bounds,
        "passed": found.candidate.chosen,
        "reason": found.reason,
        **found.candidate.facts,
    }


def _first_round(forms: Sequence[Form], schemes: Sequence[str], base: Candidate, work: Path, lengths: Sequence[int]) -> list[Found]:
    pairs = [(form, name) for form in forms for name in dict.fromkeys((*schemes, "fp32"))]
    made: list[Candidate] = []
    with progress.bar("making candidates", len(pairs)) as bar:
        for form, name in pairs:
            candidate = make(form.graph, quant.get(name), form.asked, work, form.name)
            made.append(scored(candidate, form.asked, ("probe",)))
            bar.advance(1, f"{form.name} {name}")
    p50 = times([candidate.graph for candidate in made], lengths)
    return [Found(one, time, _kl(base.scores["probe"], one.scores["probe"])) for one, time in zip(made, p50, strict=True)]


def _refused(found: Found, base: Candidate, asked: Asked, float_ms: float | None, latency_ms: float | None) -> Found:
    """With a reason where a budget or the first rows rule it out."""
    size = found.candidate.size_bytes
    probe = gate.decide(asked.task, base.scores["probe"], found.candidate.scores["probe"], asked.allowed)
    error = float(np.sqrt(max(probe.loss, asked.allowed, 0.0) / max(1, probe.rows)))
    quantised = found.candidate.scheme.name != "fp32"
    reasons: Iterator[str] = iter(
        text
        for broken, text in (
            (asked.size_bytes and size > asked.size_bytes, f"{size / 1e6:.1f} MB, the budget is {(asked.size_bytes or 0) / 1e6:.1f} MB"),
            (latency_ms and found.p50_ms > latency_ms, f"{found.p50_ms:.2f} ms, the budget is {latency_ms} ms"),
            (float_ms and quantised and found.p50_ms > float_ms, f"{found.p50_ms:.2f} ms, slower here than the float model"),
            (
                probe.loss > asked.allowed + HOPELESS * error,
                f"drop {probe.loss:.3f} on the first {probe.rows} rows, allowed {asked.allowed}",
            ),
        )
        if broken
    )
    first = next(reasons, "")
    return replace(found, reason=f"refused: {first}") if first else found


def _without_beaten(found: list[Found]) -> list[Found]:
    """A candidate that another beats in size, time and agreement at once leaves."""
    alive = [f for f in found if not f.reason]

    def beats(a: Found, b: Found) -> bool:
        no_worse = a.candidate.size_bytes <= b.candidate.size_bytes and a.p50_ms <= b.p50_ms * (1 - TIE) and a.kl <= b.kl
        return no_worse and a is not b

    winners = {id(b): next((a for a in alive if beats(a, b)), None) for b in alive}
    return [replace(f, reason=f"beaten by {_named(winner)}") if (winner := winners.get(id(f))) else f for f in found]


def _second_round(found: Found, base: Candidate, asked: Asked) -> Found:
    candidate = scored(found.candidate, asked, ("choose",))
    verdict = gate.decide(asked.task, base.scores["choose"], candidate.scores["choose"], asked.allowed)
    reason = "" if verdict.loss <= asked.allowed else f"refused on the first half: drop {verdict.loss:.4f}, allowed {asked.allowed:.4f}"
    return replace(found, candidate=candidate, loss=verdict.loss, reason=reason, verdicts={"choose": verdict})


def _third_round(found: Found, base: Candidate, asked: Asked) -> Found:
    """The second half and the harder rows may not refuse it, and both halves together must make it likely: of many candidates the luckiest
    looks best on any half."""
    slices = ("prove", *(name for name in HARDER if name in asked.examples and name in base.scores))
    candidate = scored(found.candidate, asked, slices)
    verdicts = {name: gate.decide(asked.task, base.scores[name], candidate.scores[name], asked.allowed) for name in slices}
    verdicts["both"] = gate.decide(asked.task, base.validation, candidate.validation, asked.allowed)
    failed = None if verdicts["prove"].passed(asked.strict) else "prove"
    failed = failed or next((name for name in slices[1:] if verdicts[name].disproven), None)
    what = f"{asked.task.metric} drop"
    reason = verdicts["prove"].reason(what, asked.strict)
    if failed not in (None, "prove"):
        reason = f"refused: {what} {verdicts[failed].loss:+.4f} on {verdicts[failed].rows} {failed} rows, over {asked.allowed:.4f} with 95 % confidence"
    elif failed is None and not verdicts["both"].likely:
        both = verdicts["both"]
        reason = f"{UNLIKELY}: {what} {both.loss:+.4f} on {both.rows} rows, by one standard error over {asked.allowed:.4f}"
    holds = failed is None and verdicts["both"].likely
    candidate = replace(candidate, chosen=holds, verdict=verdicts["prove"], reason=reason)
    return replace(found, candidate=candidate, verdicts={**(found.verdicts or {}), **verdicts}, reason=reason)


def _at_least_one(found: list[Found], strict: bool) -> list[Found]:
    """Where none is likely enough, the likeliest of those that nothing refused ships, as unproven."""
    left = [f for f in found if f.reason.startswith(UNLIKELY)]
    if strict or not left or any(f.candidate.chosen for f in found):
        return found
    best = min(left, key=lambda f: (f.verdicts or {})["both"].bound)
    shipped = replace(best, candidate=replace(best.candidate, chosen=True), reason=f"unproven, and the likeliest of all: {best.reason}")
    return [shipped if f is best else f for f in found]


def _no_worse_than_first(found: list[Found], base: Candidate, whole: Form, schemes: Sequence[str]) -> list[Found]:
    """Where only the float model held, what ships without a search ships: the first scheme of the target's whose point estimate on all of
    validation is within what is allowed. Nothing was chosen by its luck there, so no standard error is asked."""
    chosen = next((f for f in found if f.candidate.chosen), None)
    if chosen is None or chosen.candidate.scheme.name != "fp32" or chosen.candidate.form != whole.name:
        return found
    own = {f.candidate.scheme.name: f for f in found if f.candidate.form == whole.name and f.verdicts}
    for tried in (own[name] for name in schemes if name in own and name != "fp32"):
        candidate = scored(tried.candidate, whole.asked, ("prove",))
        verdict = gate.decide(whole.asked.task, base.validation, candidate.validation, whole.asked.allowed)
        if verdict.passed(whole.asked.strict):
            reason = f"the first scheme of the target, as without a search: {verdict.reason(f'{whole.asked.task.metric} drop', whole.asked.strict)}"
            shipped = replace(tried, candidate=replace(candidate, chosen=True, verdict=verdict, reason=reason), reason=reason)
            left = replace(chosen, candidate=replace(chosen.candidate, chosen=False), reason="")
            return [shipped if f is tried else left if f is chosen else f for f in found]
    return found


def _on_test(found: Found, asked: Asked) -> Found:
    return replace(found, candidate=scored(found.candidate, asked, ("test",)))


def _harder(form: Form) -> tuple[str, ...]:
    return tuple(name for name in HARDER if name in form.asked.examples)


def _kl(base: Scores, other: Scores) -> float:
    """Mean KL(float || candidate) in nats over the rows; without classes, the mean difference of what the metric is made of."""
    from scipy.special import log_softmax

    if base.logits is None or other.logits is None:
        return float(np.abs(base.value - other.value).mean())
    ours, theirs = (log_softmax(logits.astype(np.float64), axis=-1) for logits in (base.logits, other.logits))
    return float((np.exp(ours) * (ours - theirs)).sum(-1).mean())


def _named(found: Found) -> str:
    return f"{found.candidate.form} {found.candidate.scheme.name}"


def relax(found: Sequence[Found], asked: Asked) -> str:
    """Which budget to raise, and by how much, for the nearest candidate."""
    tried = [f for f in found if f.loss is not None]
    if not tried:
        smallest = min(found, key=lambda f: f.candidate.size_bytes)
        return f"raise --max-size: the smallest candidate has {smallest.candidate.size_bytes / 1e6:.1f} MB, {smallest.p50_ms:.2f} ms"
    best = min(tried, key=lambda f: max(v.loss for v in (f.verdicts or {}).values()))
    lost = max(verdict.loss for verdict in (best.verdicts or {}).values())
    return (
        f"the nearest is {_named(best)}: --max-drop {np.ceil(lost * 1e4) / 1e4:.4f} would let it pass; or raise --max-size, --max-latency"
    )


def nearest(found: Iterable[Found]) -> list[str]:
    """The refused, nearest first, as lines for an error."""
    order = sorted(found, key=lambda f: (f.loss is None, f.loss or 0.0, f.cost))
    return [f"{_named(f)} ({f.candidate.size_bytes / 1e6:.1f} MB, {f.p50_ms:.2f} ms): {f.reason}" for f in order]
