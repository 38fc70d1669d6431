"""Integrated gradients: they add up, and they are the integral that the paper defines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgetune.errors import GateError, MissingExtra, RequestError
from edgetune.methods import integrated_gradients
from edgetune.methods.integrated_gradients import Explainer
from edgetune.tasks import attribution

TEXT = "play the song, cold"


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Explainer:
    pytest.importorskip("captum")
    return Explainer(tiny.classifier(tmp_path_factory.mktemp("explained")), "text-classification", tiny.LABELS, 16)


def integral(explainer: Explainer, text: str, index: int, steps: int = 80) -> tuple[np.ndarray, float, float]:
    """(what each token adds, the score, that of padding), by the definition (equation 1 of arXiv:1703.01365) and the middle of each step."""
    model: Any = explainer.model
    ids = explainer.tokenizer(text, return_tensors="pt")["input_ids"]
    empty = torch.tensor([[ids[0, 0], *[0] * (ids.shape[1] - 2), ids[0, -1]]])
    table = model.get_input_embeddings()
    start, end = (table(one).detach() for one in (empty, ids))

    def score(embedded: torch.Tensor) -> torch.Tensor:
        return torch.logit(model(inputs_embeds=embedded).logits.double().softmax(-1)[:, index])

    total = torch.zeros_like(end)
    for step in range(steps):
        at = (start + (step + 0.5) / steps * (end - start)).requires_grad_()
        total += torch.autograd.grad(score(at).sum(), at)[0]
    return ((end - start) * total / steps).sum(-1)[0].numpy(), float(score(end).detach()), float(score(start).detach())


def test_they_are_the_integral_and_add_up(explainer: Explainer) -> None:
    for label in (None, "music"):
        found = explainer.explain({"text": TEXT}, label)
        of_tokens, score, baseline = integral(explainer, TEXT, tiny.LABELS.index(str(found.label)))
        assert (found.score, found.baseline) == pytest.approx((score, baseline), abs=1e-4)
        assert found.label == (label or max(tiny.LABELS, key=lambda one: explainer.explain({"text": TEXT}, one).score))
        said = [word.attribution for word in found.words]
        assert [word.word for word in found.words] == ["play", "the", "song", ",", "cold"]
        assert found.gap is not None and abs(found.gap) < 0.01 * max(1, abs(score - baseline))
        assert sum(said) + found.elsewhere + found.gap == pytest.approx(score - baseline, abs=1e-4)
        pieces = explainer.tokenizer(TEXT).word_ids()
        np.testing.assert_allclose(said, [sum(of_tokens[i] for i, w in enumerate(pieces) if w == n) for n in range(5)], atol=0.02)
        assert max(map(abs, said)) > 0.05, "the words matter"


def test_a_long_text_is_cut_and_what_is_cut_adds_nothing(explainer: Explainer) -> None:
    found = explainer.explain({"text": "the song " * 20})
    assert found.cut and found.words[-1].attribution == 0 != found.words[0].attribution


def test_attributions_that_do_not_add_up_are_not_shown(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrated_gradients, "STEPS", (1,))
    with pytest.raises(GateError, match="miss the difference"):
        explainer.explain({"text": TEXT})


def test_what_is_refused(explainer: Explainer) -> None:
    with pytest.raises(RequestError, match="no label"):
        explainer.explain({"text": TEXT}, "tea")
    with pytest.raises(RequestError, match="cannot be explained"):
        attribution.kind("question-answering")


def test_tokens_of_words() -> None:
    words = attribution.words({"a": "one two", "b": "tea"})
    spans, fields = [(0, 0), (0, 2), (2, 5), (3, 7), (0, 3), (7, 9)], [None, "a", "a", "a", "b", "a"]
    assert integrated_gradients._of_words(words, [8.0, 1.0, 2.0, 4.0, 0.5, 16.0], spans, fields) == ([3.0, 4.0, 0.5], 24.0)


def test_without_captum_a_bundle_can_still_be_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtra) as refused:
        Explainer(tmp_path, "text-classification", tiny.LABELS, 16)
    assert refused.value.exit_code == 2 and "edgetune[explain]" in str(refused.value.mend)
