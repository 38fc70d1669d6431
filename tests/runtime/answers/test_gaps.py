"""Words for gaps, as transformers' own pipeline finds them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from edgetune.runtime.worker import BundleError


@pytest.fixture
def filled(made: Callable[..., SimpleNamespace]) -> SimpleNamespace:
    from transformers import BertForMaskedLM

    return made(BertForMaskedLM, "fill-mask")


def test_as_transformers_fills_them(filled: SimpleNamespace) -> None:
    from transformers import pipeline

    pipe: Any = pipeline("fill-mask", model=filled.model, tokenizer=filled.tokenizer, top_k=5)
    text = "turn  on the [MASK] please"
    [answer] = filled.bundle.predict([text])
    expected = pipe(text)
    [gap] = answer["gaps"]
    assert text[gap["start"] : gap["end"]] == "[MASK]"
    assert [fill["text"] for fill in gap["fills"]] == [one["token_str"].strip() for one in expected]
    assert [fill["confidence"] for fill in gap["fills"]] == pytest.approx([one["score"] for one in expected], abs=1e-4)
    assert answer["text"] == text.replace("[MASK]", gap["fills"][0]["text"])
    assert filled.bundle.line(answer).startswith(answer["text"])


def test_several_gaps_and_none(filled: SimpleNamespace) -> None:
    [answer] = filled.bundle.predict(["[MASK] the lamp [MASK]"])
    assert len(answer["gaps"]) == 2
    assert "[MASK]" not in answer["text"] or any(gap["fills"][0]["text"] == "[MASK]" for gap in answer["gaps"])
    with pytest.raises(BundleError, match=r"\[MASK\]"):
        filled.bundle.predict(["nothing is missing"])
