"""benchmark, predict and verify, on bundles that only look like one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgetune.errors import GateError
from edgetune.runtime.measure import Shape


class Classifier:
    generation = None
    max_length = 8
    facts: dict[str, Any] = {"asks": ["text"]}  # noqa: RUF012

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        (text,) = texts
        known = "light" in text
        return [{"label": "lights_on" if known else None, "confidence": 0.97 if known else 0.2, "scores": {}, "cut": len(text) > 30}]

    def line(self, answer: dict[str, Any]) -> str:
        return f"{answer['label'] or '(no label)'}\t{answer['confidence']:.3f}"


class Generator:
    generation: dict[str, Any] = {"max_new_tokens": 8}  # noqa: RUF012
    facts: dict[str, Any] = {"asks": ["text"]}  # noqa: RUF012
    asked: tuple[Any, ...] = ()
    stop: tuple[str, ...] = ()
    beams = 0

    def generate(self, prompt: str, *asked: Any, on_text: Callable[[str], None], stop: Sequence[str], num_beams: int) -> dict[str, Any]:
        type(self).asked, type(self).stop, type(self).beams = asked, tuple(stop), num_beams
        for piece in ("find . ", "-name '*.png'"):
            on_text(piece)
        return {"text": "find . -name '*.png'", "tokens": [1, 2], "finished": "cut" not in prompt}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "edgetune.json").write_text("{}")
    return tmp_path


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    from edgetune import runtime

    def use(made: Any) -> None:
        monkeypatch.setattr(runtime, "load", lambda folder, *, threads, provider: made)

    return use


def test_predict_labels(edgetune, bundle: Path, loads) -> None:
    loads(Classifier())
    answer = edgetune("predict", bundle, "turn on the light", "sing")
    assert answer.out.splitlines() == ["lights_on\t0.970\tturn on the light", "(no label)\t0.200\tsing"]
    assert edgetune("predict", bundle, "turn on the light", "sing", "-q").out.splitlines() == ["lights_on", "(no label)"]
    found = edgetune("predict", bundle, "turn on the light", "sing", "--json").json
    assert [(row["input"], row["label"]) for row in found] == [("turn on the light", "lights_on"), ("sing", None)]


def test_predict_says_when_a_text_was_cut(edgetune, bundle: Path, loads) -> None:
    loads(Classifier())
    assert "was cut" in edgetune("predict", bundle, "light " * 20).err


def test_predict_reads_lines(edgetune, bundle: Path, loads, monkeypatch: pytest.MonkeyPatch) -> None:
    loads(Classifier())
    monkeypatch.setattr("sys.stdin", io.StringIO("a light\n\nsing\n"))
    assert edgetune("predict", bundle, "-q").out.splitlines() == ["lights_on", "(no label)"]
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert edgetune("predict", bundle, "--json").json == []


def test_predict_streams_what_a_generator_writes(edgetune, bundle: Path, loads) -> None:
    loads(Generator())
    answer = edgetune("predict", bundle, "list all png files", "--max-new-tokens", "5", "--temperature", "0.5", "--seed", "3")
    assert answer.out == "find . -name '*.png'\n"
    assert (Generator.asked, Generator.stop) == ((5, 0.5, 1.0, 3), ())
    edgetune("predict", bundle, "list all png files", "--stop", "a, b", "--stop", "c")
    assert (Generator.stop, Generator.beams) == (("a, b", "c"), 0)
    edgetune("predict", bundle, "list all png files", "--beams", "4")
    assert Generator.beams == 4
    found = edgetune("predict", bundle, "list all png files", "--json").json
    assert found == [{"input": "list all png files", "text": "find . -name '*.png'", "tokens": [1, 2], "finished": True}]
    assert "cut off" in edgetune("predict", bundle, "cut this").err


def test_a_text_that_looks_like_a_flag(edgetune, bundle: Path, loads) -> None:
    loads(Classifier())
    assert edgetune("predict", bundle, "-q", "--", "--json light").out == "lights_on\n"


@pytest.mark.parametrize("command", ["predict", "verify", "benchmark"])
def test_what_is_no_bundle(edgetune, tmp_path: Path, command: str) -> None:
    answer = edgetune(command, tmp_path, *(["text"] if command == "predict" else []))
    assert answer.code == 2
    assert "is not a bundle" in answer.err
    inside = tmp_path / "bundles" / "arm64"
    inside.mkdir(parents=True)
    (inside / "edgetune.json").write_text("{}")
    assert f"did you mean {inside}?" in edgetune(command, tmp_path, *(["text"] if command == "predict" else [])).err


def test_verify(edgetune, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.runtime import verify

    monkeypatch.setattr(
        verify,
        "verify",
        lambda path, on, provider, python, limit: {"bundle": str(path), "on": on, "files": 12, "opset": 20, "passed": True},
    )
    assert edgetune("verify", bundle, "--json").json["passed"] is True
    assert "verified" in edgetune("verify", bundle).out

    def refuse(path: Path, *_: Any, **__: Any) -> dict[str, Any]:
        raise GateError("3 of 128 golden vectors differ here")

    monkeypatch.setattr(verify, "verify", refuse)
    assert edgetune("verify", bundle).code == 4


def test_benchmark(edgetune, bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgetune.report import page as pages
    from edgetune.stages import benchmark

    monkeypatch.setattr(pages, "benchmark_html", lambda found: f"<p>{found['schema']}</p>")
    measured = {
        "schema": "edgetune.benchmark/1",
        "machine": {"cpu": "Some CPU"},
        "bundles": [
            {
                "path": str(bundle),
                "target": "arm64",
                "scheme": "fp32",
                "size_bytes": 1000,
                "load_ms": 1.0,
                "peak_rss_bytes": None,
                "provider": "CPUExecutionProvider",
                "threads": 2,
                "quality": None,
                "decode_tokens_per_s": 144.2,
                "latency": [{"batch": 1, "sequence": 16, "p50_ms": 2.5, "p95_ms": 3.0, "p99_ms": 3.5, "runs": 10, "ci95_ms": [2.4, 2.6]}],
            }
        ],
    }
    seen: dict[str, Any] = {}

    def measure(bundles: list[Path], **asked: Any) -> dict[str, Any]:
        seen.update(bundles=bundles, **asked)
        return measured

    monkeypatch.setattr(benchmark, "benchmark", measure)
    page = tmp_path / "page.html"
    answer = edgetune("benchmark", bundle, "--threads", "2", "--rounds", "4", "--limit", "9", "--html", page)
    assert answer.code == 0, answer.err
    elsewhere = {"generated": 100, "on": "local", "python": None, "result": None}
    shapes = [Shape(1, None), Shape(1, 16), Shape(1, 128)]
    asked = {"bundles": [bundle], "against": (), "rounds": 4, "threads": [2], "provider": None, "shapes": shapes, "rows": None, "limit": 9}
    assert seen == {**asked, **elsewhere}
    for text in ("arm64", "2.50", "2.40 .. 2.60", "Some CPU", "144 tokens a second", str(page)):
        assert text in answer.out
    assert page.read_text() == "<p>edgetune.benchmark/1</p>"
    assert edgetune("benchmark", bundle, "--json").json == measured
    assert edgetune("benchmark", bundle, "-q").out == f"{bundle}\t2.5\n"


def test_a_grid_and_rivals_are_passed_on(edgetune, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune.stages import benchmark

    seen: dict[str, Any] = {}

    def measure(bundles: list[Path], **asked: Any) -> dict[str, Any]:
        seen.update(asked)
        return {"bundles": []}

    monkeypatch.setattr(benchmark, "benchmark", measure)
    flags = ("--batch", "1,8", "--sequence", "real, 64", "--threads", "1,2,1", "--against", "a.onnx", "--against", "merged")
    answer = edgetune("benchmark", bundle, *flags)
    assert answer.code == 0, answer.err
    assert seen["shapes"] == [Shape(1, None), Shape(1, 64), Shape(8, None), Shape(8, 64)]
    assert seen["threads"] == [1, 2]
    assert seen["against"] == [Path("a.onnx"), Path("merged")]
    for flags, said in (
        (("--batch", "0"), '--batch takes numbers from 1 on, separated by commas; "0" is not'),
        (("--batch", "real"), '"real" is not'),
        (("--sequence", "16,long"), "--sequence takes numbers from 1 on, or real"),
        (("--threads", "two"), '"two" is not'),
    ):
        answer = edgetune("benchmark", bundle, *flags)
        assert (answer.code, said in answer.err) == (2, True), answer.err


def test_a_kit_is_written_and_nothing_is_measured(edgetune, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    answer = edgetune("benchmark", bundle, "--kit", bundle / "kit")
    assert (answer.code, "is inside of" in answer.err) == (2, True)
    kit = tmp_path_factory.mktemp("away") / "kit"
    answer = edgetune("benchmark", bundle, "--kit", kit, "--rounds", "5", "--threads", "2")
    assert answer.code == 0, answer.err
    plan = json.loads((kit / "plan.json").read_text())
    assert plan["rounds"] == 5
    assert "--threads 2" in " ".join(plan["commands"][0])
    assert f"edgetune benchmark {bundle} --import result.json" in answer.err
    assert edgetune("benchmark", bundle, "--kit", kit).code == 2  # it is there
    answer = edgetune("benchmark", bundle, "--kit", kit / "other", "--threads", "1,2")
    assert (answer.code, "one number of threads" in answer.err) == (2, True)
    for flags in (("--on", "ssh://device"), ("--rows", "rows.jsonl"), ("--against", "other")):
        answer = edgetune("benchmark", bundle, "--kit", kit / "other", *flags)
        assert (answer.code, f"takes no {flags[0]}" in answer.err) == (2, True)
    answer = edgetune("benchmark", bundle, "--import", kit / "result.json", "--threads", "2")
    assert (answer.code, "takes no --on, --threads or --provider" in answer.err) == (2, True)
