"""The search: every candidate is measured, hopeless and beaten ones leave with a reason, the cheapest that holds on unseen rows ships."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import numpy_helper

from edgetune import target, tasks
from edgetune.fit import search as module
from edgetune.fit.candidates import Asked
from edgetune.fit.search import Form, Found, search
from edgetune.graph import session

SCHEMES = ("int8-dynamic-per-channel", "fp32")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Form:
    folder = tmp_path_factory.mktemp("classifier")
    graph = tiny.graph(tiny.classifier(folder), folder / "model.onnx")
    chance, forward = np.random.default_rng(0), session.forward(graph)
    rows: list[dict[str, Any]] = []
    while len(rows) < 240:
        ids = chance.integers(5, 100, (1, int(chance.integers(2, 12))))
        logits = forward({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"][0]
        first, second = np.sort(logits)[[-1, -2]]
        if first - second > 0.5:
            rows.append({"input_ids": ids[0].tolist(), "label": int(logits.argmax())})
    examples = {"probe": rows[:40], "choose": rows[:80], "prove": rows[80:160], "typos": rows[160:200], "test": rows[200:]}
    asked = Asked(tasks.get("text-classification"), examples, tiny.LABELS, 0, target.load("x86_64-vnni"), 0.05, False, None)
    return Form("whole", graph, asked)


def broken(form: Form, place: Path, share: float, name: str) -> Form:
    """A form whose first weights are scrambled: the less it is scrambled, the more answers it keeps."""
    model, chance = onnx.load(form.graph), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).copy()
            values[chance.random(values.shape) < share] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, place / f"{name}.onnx")
    return Form(name, place / f"{name}.onnx", form.asked)


def run(forms: list[Form], work: Path, **changes: Any) -> tuple[Any, list[Found]]:
    options: dict[str, Any] = {"here": False, "latency_ms": None, "fit": True, **changes}
    return search(forms, SCHEMES, work, [3, 6, 9], **options)


@pytest.fixture
def fixed_times(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Milliseconds by form and scheme, in place of a measurement."""
    table: dict[str, float] = {}
    monkeypatch.setattr(module, "times", lambda graphs, lengths: [table.get(path.parent.name.split("-", 1)[1], 1.0) for path in graphs])
    return table


def by_name(found: list[Found]) -> dict[str, Found]:
    return {f"{f.candidate.form} {f.candidate.scheme.name}": f for f in found}


def test_the_cheapest_that_holds_ships(whole: Form, tmp_path: Path, fixed_times: dict[str, float]) -> None:
    base, found = run([whole], tmp_path)
    chosen = [f for f in found if f.candidate.chosen]
    assert [f.candidate.scheme.name for f in chosen] == ["int8-dynamic-per-channel"]
    assert set(chosen[0].verdicts or {}) == {"choose", "prove", "both", "typos"}
    assert {"test"} < set(chosen[0].candidate.scores) and {"test"} < set(base.scores)
    assert by_name(found)["whole fp32"].reason.startswith("not needed")
    assert by_name(found)["whole fp32"].kl == 0
    assert all(f.reason for f in found), "each says why it ships or not"


def test_a_broken_form_is_refused_early_and_never_scored_on_test(whole: Form, tmp_path: Path, fixed_times: dict[str, float]) -> None:
    _, found = run([whole, broken(whole, tmp_path, 0.9, "ruin")], tmp_path / "work")
    for one in found:
        if one.candidate.form == "ruin":
            assert "on the first 40 rows" in one.reason
            assert set(one.candidate.scores) == {"probe"}
    assert by_name(found)["whole int8-dynamic-per-channel"].candidate.chosen


def test_what_fails_on_the_second_half_does_not_ship(
    whole: Form, tmp_path: Path, fixed_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right where it was chosen, wrong where it is proven: the labels of the second half are not those that int8 gives."""
    decide = module.gate.decide

    def unlucky(task: Any, base: Any, candidate: Any, allowed: float) -> Any:
        verdict = decide(task, base, candidate, allowed)
        lossy = not np.array_equal(base.logits, candidate.logits)
        return dataclasses.replace(verdict, loss=0.3, bound=0.4) if lossy and verdict.rows >= 80 and unlucky.proving else verdict

    unlucky.proving = False  # type: ignore[attr-defined]
    third = module._third_round

    def proving(*given: Any) -> Found:
        unlucky.proving = True  # type: ignore[attr-defined]
        return third(*given)

    monkeypatch.setattr(module.gate, "decide", unlucky)
    monkeypatch.setattr(module, "_third_round", proving)
    _, found = run([whole], tmp_path)
    assert by_name(found)["whole int8-dynamic-per-channel"].reason.startswith("refused: accuracy drop")
    assert by_name(found)["whole fp32"].candidate.chosen


def test_a_lucky_one_does_not_ship_while_a_likely_one_is_left(
    whole: Form, tmp_path: Path, fixed_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A smaller model's int8 is within what is allowed on each half, but not by a standard error on both together; where nothing else is left
    it ships, unproven. Where the float model is left, what ships without a search does."""
    decide = module.gate.decide

    def narrowly(task: Any, base: Any, candidate: Any, allowed: float) -> Any:
        verdict = decide(task, base, candidate, allowed)
        lossy = not np.array_equal(base.logits, candidate.logits)
        return dataclasses.replace(verdict, loss=0.045, bound=0.08) if lossy and verdict.rows > 40 else verdict

    monkeypatch.setattr(module.gate, "decide", narrowly)
    forms, int8 = [whole, broken(whole, tmp_path, 0.0, "small")], "int8-dynamic-per-channel"
    _, found = run(forms, tmp_path / "work")
    assert by_name(found)[f"small {int8}"].reason.startswith("not likely enough: accuracy drop +0.0450 on 160 rows")
    first = by_name(found)[f"whole {int8}"]
    assert first.candidate.chosen and first.reason.startswith("the first scheme of the target, as without a search: unproven")
    assert "test" in first.candidate.scores
    assert by_name(found)["whole fp32"].reason.startswith("not needed")
    _, found = run(forms, tmp_path / "work", fit=False)
    assert not by_name(found).keys() & {"whole fp32", f"whole {int8}"}, "a form that was asked for is not exchanged"
    monkeypatch.setattr(module, "_refused", lambda f, *given: dataclasses.replace(f, reason="out") if f.kl == 0 else f)
    _, found = run([whole], tmp_path)
    shipped = by_name(found)[f"whole {int8}"]
    assert shipped.candidate.chosen and shipped.reason.startswith("unproven, and the likeliest of all")
    assert "test" in shipped.candidate.scores


def test_slower_than_float_here_is_never_chosen(whole: Form, tmp_path: Path, fixed_times: dict[str, float]) -> None:
    fixed_times["int8-dynamic-per-channel"] = 1.01
    _, found = run([whole], tmp_path, here=True)
    assert "slower here than the float model" in by_name(found)["whole int8-dynamic-per-channel"].reason
    assert by_name(found)["whole fp32"].candidate.chosen
    _, found = run([whole], tmp_path, here=False)
    assert by_name(found)["whole int8-dynamic-per-channel"].candidate.chosen, "elsewhere this machine's times do not refuse"


def test_budgets(whole: Form, tmp_path: Path, fixed_times: dict[str, float]) -> None:
    small = Form(whole.name, whole.graph, dataclasses.replace(whole.asked, size_bytes=1000.0))
    _, found = run([small], tmp_path)
    assert not any(f.candidate.chosen for f in found)
    assert all("the budget is 0.0 MB" in f.reason for f in found)
    assert "raise --max-size" in module.relax(found, small.asked)
    _, found = run([whole], tmp_path, here=True, latency_ms=0.5)
    assert all("the budget is 0.5 ms" in f.reason for f in found)
    assert len(module.nearest(found)) == len(found)


def test_a_form_that_was_asked_for_is_not_exchanged(whole: Form, tmp_path: Path, fixed_times: dict[str, float]) -> None:
    _, found = run([whole, broken(whole, tmp_path, 0.0, "same")], tmp_path / "work", fit=False)
    assert {f.candidate.form for f in found} == {"same"}
    assert any(f.candidate.chosen for f in found)


def test_a_second_search_makes_nothing_again(
    whole: Form, tmp_path: Path, fixed_times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = run([whole], tmp_path)
    monkeypatch.setattr("edgetune.fit.candidates._score", lambda *given: pytest.fail("scored again"))
    _, second = run([whole], tmp_path)
    assert [f.reason for f in first] == [f.reason for f in second]


def test_the_row_of_the_report(whole: Form, tmp_path: Path) -> None:
    _, found = run([whole], tmp_path)
    facts = [module.as_facts(one, whole.asked) for one in found]
    json.dumps(facts)
    assert all(row["p50_ms"] > 0 and row["kl"] >= 0 for row in facts), "measured, not made up"
    assert sum(row["passed"] for row in facts) == 1


@pytest.mark.parametrize(("kl", "beaten"), [((0.1, 0.2), True), ((0.2, 0.1), False), ((0.1, 0.1), True)], ids=["worse", "nearer", "equal"])
def test_beaten_in_all_three(kl: tuple[float, float], beaten: bool, whole: Form, tmp_path: Path) -> None:
    one = module.make(whole.graph, module.quant.get("fp32"), whole.asked, tmp_path)
    quick, slow = (Found(dataclasses.replace(one, form=name), time, k) for name, time, k in (("a", 1.0, kl[0]), ("b", 2.0, kl[1])))
    left = module._without_beaten([quick, slow])
    assert left[0].reason == ""
    assert (left[1].reason == "beaten by a fp32") is beaten
