"""predict --explain, on a bundle that only looks like one and on a run with a model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune.artifact import folder_digest
from edgetune.recipe import dump


class Bundle:
    """Answers by the word "light"."""

    facts: dict[str, Any] = {"asks": ["text"], "task": "text-classification", "labels": ["lights_on", "other"]}  # noqa: RUF012

    def item(self, given: Any) -> dict[str, str]:
        return given if isinstance(given, dict) else {"text": given}

    def read(self, item: dict[str, str]) -> tuple[list[str], None]:
        return [item["text"]], None

    def alone(self, rows: list[str]) -> dict[str, Any]:
        import numpy as np

        return {"logits": np.array([[2.0 if "light" in rows[0] else -1.0, 0.0]])}

    def tokenized(self, item: dict[str, str]) -> tuple[None, Any]:
        return None, type("Encoding", (), {"overflowing": ()})


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from edgetune import runtime

    monkeypatch.setattr(runtime, "load", lambda folder, *, threads, provider: Bundle())
    (tmp_path / "edgetune.json").write_text("{}")
    return tmp_path


def test_a_bundle_is_explained(edgetune, bundle: Path) -> None:
    answer = edgetune("predict", bundle, "--explain", "the <light> on")
    assert answer.code == 0 and "lights_on  0.881  (log-odds +2.000, occlusion)" in answer.out
    assert re.search(r"light +\+3\.000", answer.out) and "the <light> on" in answer.out
    assert edgetune("predict", bundle, "--explain", "light on", "-q").out == "light\t+3.0000\non\t+0.0000\n"
    page = bundle / "page.html"
    [found] = edgetune("predict", bundle, "--explain", "the <light> on", "--label", "other", "--json", "--html", page).json
    assert found["label"] == "other" and found["score"] == -2.0 and found["input"] == {"text": "the <light> on"}
    assert [(word["word"], word["start"], word["attribution"]) for word in found["words"] if word["attribution"]] == [("light", 5, -3.0)]
    shown = page.read_text("utf-8")
    assert "<mark" in shown and "&lt;" in shown and "http" not in shown.replace("http-equiv", "")
    assert "".join(re.sub("<[^>]*>", "", re.search(r"<p>(.*)</p>", shown)[1]).split()) == "the&lt;light&gt;on"


def test_a_run_is_explained(edgetune, tmp_path: Path) -> None:
    pytest.importorskip("captum")
    tiny.classifier(tmp_path / "merged")
    (tmp_path / "recipe.toml").write_text(dump(tiny.recipe(tmp_path)))
    assert "holds no merged model" in edgetune("predict", tmp_path, "--explain", "song").err
    entry = {
        "digest": folder_digest(tmp_path / "merged"),
        "facts": {"labels": list(tiny.LABELS), "max_length": 32, "asks": ["text"]},
        "key": "",
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"stages": {"merge": entry}}))
    [found] = edgetune("predict", tmp_path, "--explain", "play the song", "--json").json
    total = sum(word["attribution"] for word in found["words"])
    assert found["how"] == "integrated gradients" and total == pytest.approx(found["score"] - found["baseline"], abs=0.02)
    assert "words add up but for" in edgetune("predict", tmp_path, "--explain", "play the song").out
    refused = edgetune("predict", tmp_path, "--explain", "song", "--threads", "2")
    assert refused.code == 2 and "in PyTorch" in refused.err


def test_what_is_refused(edgetune, bundle: Path, tmp_path: Path) -> None:
    for flags in (("--label", "other"), ("--html", tmp_path / "page.html")):
        refused = edgetune("predict", bundle, "light", *flags)
        assert refused.code == 2 and "give --explain too" in refused.err
    refused = edgetune("predict", bundle, "light", "--explain", "--label", "othr")
    assert refused.code == 2 and 'did you mean "other"' in refused.err
    assert edgetune("predict", tmp_path / "nothing", "light", "--explain").code == 2
