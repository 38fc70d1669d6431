"""The search: schemes in their order, each judged, kept by content and never served when changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny

from edgetune import quant, target, tasks
from edgetune.fit import candidates
from edgetune.fit.candidates import Asked
from edgetune.fit.first import choose
from edgetune.graph import session
from edgetune.tasks import text_classification as task

ENCODER = ("int8-dynamic-per-channel", "int8-dynamic", "fp32")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    return tiny.graph(tiny.classifier(folder), folder / "model.onnx")


@pytest.fixture(scope="module")
def examples(graph: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows that the float graph gets right, each with a clear margin."""
    chance, forward = np.random.default_rng(0), session.forward(graph)
    rows: list[dict[str, Any]] = []
    while len(rows) < 120:
        ids = chance.integers(5, 100, (1, int(chance.integers(2, 12))))
        logits = forward({"input_ids": ids, "attention_mask": np.ones_like(ids)})["logits"][0]
        first, second = np.sort(logits)[[-1, -2]]
        if first - second > 0.5:
            rows.append({"input_ids": ids[0].tolist(), "label": int(logits.argmax())})
    return {"validation": rows[:60], "test": rows[60:]}


@pytest.fixture
def asked(examples: dict[str, list[dict[str, Any]]]) -> Asked:
    return Asked(tasks.get("text-classification"), examples, tiny.LABELS, 0, target.load("x86_64-vnni"), 0.05, False, None)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Which graphs are scored, and on what."""
    calls: list[str] = []
    original = candidates._score

    def counted(graph: Path, scheme: quant.Scheme, asked: Asked, split: str) -> Any:
        calls.append(f"{scheme.name} {split}")
        return original(graph, scheme, asked, split)

    monkeypatch.setattr(candidates, "_score", counted)
    return calls


def names(tried: list[candidates.Candidate]) -> list[tuple[str, bool]]:
    return [(candidate.scheme.name, candidate.chosen) for candidate in tried]


def test_the_first_that_passes_is_chosen(graph: Path, asked: Asked, tmp_path: Path) -> None:
    tried = choose(graph, ENCODER, asked, tmp_path)
    assert names(tried) == [("fp32", False), ("int8-dynamic-per-channel", True)]
    assert tried[0].reason == "the float graph that the others are compared with"
    assert tried[1].reason.startswith(("proven: accuracy drop", "unproven: accuracy drop"))
    assert tried[1].graph.stat().st_size == tried[1].size_bytes < tried[0].size_bytes


@pytest.mark.parametrize("order", [("int8-dynamic", "int8-dynamic-per-channel"), ("fp32", "int8-dynamic"), ("int8-dynamic-per-channel",)])
def test_in_the_order_that_was_asked(graph: Path, asked: Asked, tmp_path: Path, order: tuple[str, ...]) -> None:
    assert next(c.scheme.name for c in choose(graph, order, asked, tmp_path) if c.chosen) == order[0]


def test_a_bad_scheme_is_refused_and_the_next_is_tried(graph: Path, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.sabotage(monkeypatch, True)
    tried = choose(graph, ENCODER, asked, tmp_path)
    assert names(tried) == [("fp32", False), ("int8-dynamic-per-channel", False), ("int8-dynamic", True)]
    assert tried[1].reason.startswith("refused: accuracy drop")
    assert tried[1].verdict is not None and tried[1].verdict.loss > 0.2


def test_the_float_graph_is_the_last_resort(graph: Path, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.sabotage(monkeypatch, True, False)
    assert names(choose(graph, ENCODER, asked, tmp_path))[-1] == ("fp32", True)


def test_all_may_be_refused(graph: Path, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.sabotage(monkeypatch, True, False)
    assert not any(c.chosen for c in choose(graph, ENCODER[:2], asked, tmp_path))


def test_strict_refuses_what_is_not_proven(graph: Path, asked: Asked, tmp_path: Path) -> None:
    """Sixty rows cannot prove a drop under 1 %."""
    lenient, strict = (
        choose(graph, ENCODER, dataclasses.replace(asked, allowed=0.01, strict=strict), tmp_path / str(strict)) for strict in (False, True)
    )
    assert names(strict)[-1] == ("fp32", True)
    assert all("too few to prove" in c.reason or c.verdict.loss > 0.01 for c in strict if c.verdict)
    assert lenient[-1].chosen


def test_a_size_budget(graph: Path, asked: Asked, tmp_path: Path) -> None:
    sizes = {c.scheme.name: c.size_bytes for c in choose(graph, ENCODER, dataclasses.replace(asked, size_bytes=1), tmp_path)}
    assert set(sizes) == set(ENCODER)
    tight = dataclasses.replace(asked, size_bytes=sizes["int8-dynamic"])
    tried = choose(graph, ENCODER, tight, tmp_path)
    assert sizes["int8-dynamic"] < sizes["int8-dynamic-per-channel"] < sizes["fp32"]
    assert names(tried) == [("fp32", False), ("int8-dynamic-per-channel", False), ("int8-dynamic", True)]
    assert tried[1].too_large and tried[1].reason.startswith("refused: ") and "the budget is" in tried[1].reason
    assert not any(c.chosen for c in choose(graph, ("fp32",), tight, tmp_path)), "the float graph has to fit too"


def test_a_second_target_uses_what_the_first_made(graph: Path, asked: Asked, tmp_path: Path, scored: list[str]) -> None:
    first = choose(graph, ENCODER, asked, tmp_path)
    assert scored == [f"{scheme} {split}" for scheme in ("fp32", "int8-dynamic-per-channel") for split in ("validation", "test")]
    scored.clear()
    second = choose(graph, ENCODER, dataclasses.replace(asked, target=target.load("arm64")), tmp_path)
    assert not scored
    assert [c.size_bytes for c in first] == [c.size_bytes for c in second]
    assert np.array_equal(first[1].test.logits, second[1].test.logits)
    choose(graph, ENCODER, dataclasses.replace(asked, target=target.load("x86_64")), tmp_path)
    assert scored == [f"int8-dynamic-per-channel {split}" for split in ("validation", "test")], "7-bit weights are another graph"


@pytest.mark.parametrize("name", ["model.onnx", "scores-validation-*.npz", "entry.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "deleted"])
def test_what_was_changed_is_made_again(graph: Path, asked: Asked, tmp_path: Path, scored: list[str], name: str, damage: str) -> None:
    before = choose(graph, ENCODER, asked, tmp_path)[1]
    (path,) = before.graph.parent.glob(name)
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else content[:-9] + bytes(9))
    scored.clear()
    after = choose(graph, ENCODER, asked, tmp_path)[1]
    assert scored == [f"int8-dynamic-per-channel {split}" for split in ("validation", "test")]
    assert np.array_equal(before.validation.logits, after.validation.logits)
    assert after.graph.read_bytes() and (name == "entry.json" or path.read_bytes() == content)


def test_a_changed_fact_is_no_digest_of_its_own(graph: Path, asked: Asked, tmp_path: Path) -> None:
    """The entry names the digests of the files beside it, and all of them."""
    kept = choose(graph, ENCODER, asked, tmp_path)[1].graph.parent
    entry = json.loads((kept / "entry.json").read_text())
    assert set(entry["sha256"]) == {path.name for path in kept.iterdir()} - {"entry.json"}
    assert len(entry["sha256"]) == 3, "the graph, and the scores of two splits"


def test_what_a_kill_left_half_written_is_taken_away(graph: Path, asked: Asked, tmp_path: Path, scored: list[str]) -> None:
    kept = choose(graph, ENCODER, asked, tmp_path)[1].graph.parent
    (kept / "scores-validation-00000000.npz").write_bytes(b"PK")
    scored.clear()
    assert choose(graph, ENCODER, asked, tmp_path)[1].chosen and not scored
    assert not (kept / "scores-validation-00000000.npz").exists()


def test_only_what_ships_is_scored_on_test(
    graph: Path, asked: Asked, tmp_path: Path, scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.sabotage(monkeypatch, True)
    choose(graph, ENCODER, asked, tmp_path)
    assert [call for call in scored if call.endswith("test")] == ["fp32 test", "int8-dynamic test"]


def test_int8_is_scored_as_an_app_runs_it(graph: Path, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time: the scale of dynamic activations is taken over the whole batch."""
    sizes: dict[str, set[int]] = {}
    original = session.forward

    def watched(path: Path, *options: Any) -> Any:
        forward = original(path, *options)

        def run(given: Any) -> Any:
            sizes.setdefault(path.parent.name.partition("-")[2], set()).add(len(given["input_ids"]))
            return forward(given)

        return run

    monkeypatch.setattr(session, "forward", watched)
    choose(graph, ENCODER, asked, tmp_path)
    assert sizes["int8-dynamic-per-channel"] == {1}
    assert max(sizes["fp32"]) > 1


def test_the_row_of_the_report(graph: Path, asked: Asked, tmp_path: Path) -> None:
    chosen = choose(graph, ENCODER, asked, tmp_path)[1]
    facts = candidates.as_facts(asked.task, chosen, tiny.LABELS)
    assert facts["quality"] == facts["validation"]["accuracy"] == task.metrics(chosen.validation, tiny.LABELS)["accuracy"]
    assert facts["drop"] == pytest.approx(1 - facts["quality"]), "against the float graph, which is right on every row"
    assert facts["bound"] >= facts["drop"]
    assert facts["passed"] is True and facts["weight_bits"] == 8
    json.dumps(facts)


def test_types_that_a_target_keeps_in_float_stay_so(graph: Path, tmp_path: Path, asked: Asked) -> None:
    device = asked.target.model_copy(update={"quantization": asked.target.quantization.model_copy(update={"float_ops": ("Gather",)})})
    made = {}
    for name, own in (("all", asked.target), ("kept", device)):
        choose(graph, ["int8-dynamic-per-channel"], dataclasses.replace(asked, target=own, allowed=1.0), tmp_path)
        made[name] = {path.name for path in tmp_path.iterdir() if "int8" in path.name}
    (new,) = made["kept"] - made["all"]
    kept, every = (onnx.load(tmp_path / folder / "model.onnx") for folder in (new, *made["all"]))
    largest = [max(tensor.ByteSize() for tensor in model.graph.initializer) for model in (kept, every)]
    assert largest[0] > 3 * largest[1], "the embedding is in float again"


def test_another_level_of_optimisation_has_scores_of_its_own(graph: Path, tmp_path: Path, asked: Asked) -> None:
    level = asked.target.session.model_copy(update={"optimization": "disabled"})
    for own in (asked.target, asked.target.model_copy(update={"session": level})):
        choose(graph, ["fp32"], dataclasses.replace(asked, target=own), tmp_path)
    assert {path.name.partition("-")[2] for path in tmp_path.iterdir()} == {"fp32", "fp32-disabled"}


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_windows_of_one_text_are_scored_together(count: int) -> None:
    windows = [{"item": item, "window": i} for item, number in enumerate((3, 1, 7, 1, 1, 2)) for i in range(number)]
    parts = candidates._shares(windows, count)
    assert [one for part in parts for one in part] == windows
    assert 1 <= len(parts) <= count
    owners = [{one["item"] for one in part} for part in parts]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert [len(part) for part in candidates._shares([{}] * 10, 3)] == [4, 4, 2]


def test_what_was_made_of_another_graph_is_forgotten(graph: Path, asked: Asked, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    model = onnx.load(graph)
    model.doc_string = "retrained"
    onnx.save(model, other)
    work = tmp_path / "work"
    made = [candidates.make(one, quant.get("fp32"), asked, work).graph for one in (graph, other)]
    candidates.forget(work, [graph])
    assert [one.exists() for one in made] == [True, False]
    candidates.forget(tmp_path / "none", [graph])
