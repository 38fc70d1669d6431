"""How a classifier is traced: what goes in and out, and on which shapes it is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny

from edgetune.graph import Plan, Shape, encoder
from edgetune.methods.model import forward, load_merged


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return tiny.plan(folder)


def test_names_are_the_ecosystems(plan: Plan) -> None:
    assert plan.inputs == ("input_ids", "attention_mask")
    assert plan.outputs == ("logits",)
    assert plan.dynamic["input_ids"] == plan.dynamic["attention_mask"] == {0: "batch_size", 1: "sequence_length"}
    assert plan.dynamic["logits"] == {0: "batch_size"}


def test_the_grid_is_that_of_the_design(plan: Plan) -> None:
    assert set(plan.shapes) == {Shape(1, s) for s in (1, 2, 17, 64)} | {
        Shape(3, s, padded=p) for s in (1, 2, 17, 64) for p in (False, True)
    }


@pytest.mark.parametrize(("longest", "sequences"), [(8, {1, 2, 8}), (512, {1, 2, 17, 512}), (4096, {1, 2, 17, 512})])
def test_the_longest_sequence(folder: Path, longest: int, sequences: set[int]) -> None:
    found = encoder.plan(load_merged(folder, "text-classification"), longest)
    assert {shape.sequence for shape in found.shapes} == sequences
    assert found.trace_shape.sequence <= longest


def test_feeds_are_valid_and_padded_on_the_right(plan: Plan) -> None:
    for seed, shape in enumerate(plan.shapes):
        feeds = plan.feeds(shape, seed)
        ids, mask = feeds["input_ids"], feeds["attention_mask"]
        assert ids.shape == mask.shape == (shape.batch, shape.sequence)
        assert ids.dtype == mask.dtype == np.int64
        assert ids.min() >= 0 and ids.max() < plan.module.model.config.vocab_size
        assert mask[:, 0].all(), "a row has at least one token"
        assert (np.diff(mask, axis=1) <= 0).all()
        assert (ids[mask == 0] == 0).all()
        assert shape.padded or mask.all()
    assert not plan.feeds(Shape(3, 64, padded=True), 0)["attention_mask"].all()


def test_leaving_out_token_types_changes_nothing(folder: Path, plan: Plan) -> None:
    import torch

    feeds = {name: torch.from_numpy(array) for name, array in plan.feeds(Shape(3, 17, padded=True), 0).items()}
    model = load_merged(folder, "text-classification")
    with torch.no_grad():
        expected = model(**feeds, token_type_ids=torch.zeros_like(feeds["input_ids"])).logits
        torch.testing.assert_close(plan.module(*feeds.values())[0], expected, rtol=1e-5, atol=1e-5)
    assert not plan.module.training
    said = forward(model)({name: feeds[name].numpy() for name in ("input_ids", "attention_mask")})["logits"]
    assert np.allclose(said, expected.numpy(), atol=1e-5)
