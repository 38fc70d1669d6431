"""Methods on a model that is no transformers model, but one around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from edgetune.errors import RecipeError
from edgetune.methods import adapters, full
from edgetune.methods.model import forward


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentences")
    tiny.bert(path / "model")
    return path


def recipe(folder: Path, method: str) -> Any:
    return tiny.recipe(folder, task="sentence-similarity", method=method)


GIVEN = {"input_ids": np.array([[2, 7, 9, 3], [2, 8, 3, 0]]), "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 1, 0]])}


def said(model: torch.nn.Module) -> np.ndarray:
    return np.asarray(forward(model.eval())(GIVEN)["sentence_embedding"])


def test_an_adapter_is_trained_saved_and_merged(folder: Path, tmp_path: Path) -> None:
    asked = recipe(folder, "lora")
    model = adapters.attach(asked, ())
    before = said(model)
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained), "a pooler that nothing reads is not trained"
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5)
    after = said(model)
    assert np.abs(after - before).max() > 0.01
    adapters.save(model, tmp_path)
    merged = adapters.merge(asked, tmp_path, ())
    np.testing.assert_allclose(said(merged.reference), after, atol=1e-5)
    np.testing.assert_allclose(said(merged.model), after, atol=1e-4)
    merged.model.save_pretrained(tmp_path / "merged", safe_serialization=True)
    np.testing.assert_allclose(said(full.restore(asked, tmp_path / "merged", ())), after, atol=1e-4)


def test_there_is_no_head_to_train(folder: Path) -> None:
    with pytest.raises(RecipeError, match="sentence-similarity has no head"):
        full.attach(recipe(folder, "head"), ())
    assert all(weight.requires_grad for weight in full.attach(recipe(folder, "full"), ()).parameters())
