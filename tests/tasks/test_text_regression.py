"""Numbers: what is learned is standardised, what is answered is in the data's own unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import scipy.stats
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from edgetune.errors import DataError, ModelError
from edgetune.tasks import Scores, correlation
from edgetune.tasks import text_regression as task

TINY = {"vocab_size": 60, **tiny.SIZES, "num_labels": 1}


def scored(said: Any, wanted: Any) -> Scores:
    return Scores(np.array(said, dtype=float), np.ones(len(said)), extra=np.array(wanted, dtype=float)[:, None])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.tokenizer(tmp_path_factory.mktemp("words"))


def test_encode_and_collate(tokenizer: Any) -> None:
    rows = [{"text": "play the song", "score": 2.5}, {"text": "lamp " * 30, "score": -1.0}]
    encoded = task.encode(rows, tokenizer, max_length=16, labels=())
    assert encoded.cut == 1
    assert encoded.examples[0] == {"input_ids": tokenizer("play the song")["input_ids"], "score": 2.5}
    batch = task.collate(encoded.examples, 0)
    assert batch["labels"].tolist() == [2.5, -1.0]
    assert batch["labels"].dtype == np.float32
    assert "token_type_ids" not in batch
    pair = task.encode([{**row, "text_pair": "a gate"} for row in rows], tokenizer, max_length=16, labels=()).examples[0]
    assert pair["input_ids"] == tokenizer("play the song", "a gate")["input_ids"]
    assert sum(pair["token_type_ids"]) > 0


@given(arrays(np.float64, st.integers(2, 40), elements=st.integers(-5, 5).map(float)), st.data())
def test_correlations_are_those_of_scipy(a: np.ndarray, data: st.DataObject) -> None:
    b = data.draw(arrays(np.float64, len(a), elements=st.floats(-100, 100, width=16)))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert correlation.spearman(a, b) == correlation.pearson(a, b) == 0
        return
    assert correlation.spearman(a, b) == pytest.approx(scipy.stats.spearmanr(a, b).statistic, abs=1e-9)
    assert correlation.pearson(a, b) == pytest.approx(scipy.stats.pearsonr(a, b).statistic, abs=1e-6)


def test_metrics_by_hand() -> None:
    found = task.metrics(scored([1, 2, 4], [10, 30, 20]), ())
    assert found["spearman"] == pytest.approx(0.5)
    assert found["mean_absolute_error"] == pytest.approx((9 + 28 + 16) / 3)
    assert found["mean_squared_error"] == pytest.approx((81 + 784 + 256) / 3)
    assert task.quality(scored([1, 2, 4], [10, 30, 20]).take(np.array([0, 1, 1]))) == pytest.approx(1)
    assert task.metrics(scored([3, 3, 3], [1, 2, 3]), ())["spearman"] == 0, "one answer to everything orders nothing"


@pytest.mark.parametrize("size", [1, 2, 64])
def test_scores_are_in_the_order_of_the_rows(size: int) -> None:
    examples = [{"input_ids": [i] * n, "score": 10.0 * i} for i, n in enumerate((5, 1, 9, 2))]
    found = task.score(lambda given: {"logits": given["input_ids"][:, :1].astype(np.float32)}, examples, 0, size)
    assert found.value.tolist() == [0, 1, 2, 3]
    assert found.extra is not None and found.extra[:, 0].tolist() == [0, 10, 20, 30]


@pytest.mark.parametrize("kind", [(BertConfig, BertForSequenceClassification), (RobertaConfig, RobertaForSequenceClassification)])
@pytest.mark.parametrize(("middle", "spread"), [(0.0, 1e-4), (2000.0, 500.0)])
def test_what_is_folded_in_says_the_same_in_its_own_unit(kind: Any, middle: float, spread: float) -> None:
    torch.manual_seed(0)
    config, make = kind
    model = make(config(**TINY)).eval()
    chance = np.random.default_rng(0)
    examples = [{"input_ids": chance.integers(5, 60, 6).tolist(), "score": middle + spread * float(chance.normal())} for _ in range(40)]
    learns = task.training(examples, model)
    standard = learns.collate(examples, 0)["labels"]
    assert standard.mean() == pytest.approx(0, abs=1e-5) and standard.std() == pytest.approx(1, rel=1e-4)

    def forward(given: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        with torch.no_grad():
            return {"logits": model(**{name: torch.from_numpy(value) for name, value in given.items()}).logits.numpy()}

    before = learns.score(forward, examples, 0).value
    assert np.abs(task.score(forward, examples, 0).value).max() < 3, "the model itself is in standard deviations"
    learns.finish(model)
    after = task.score(forward, examples, 0).value
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * spread)
    assert np.abs(after - middle).max() < 3 * spread
    assert np.ptp(after) > 1e-3 * spread


def test_the_loss_is_in_standard_deviations() -> None:
    model = BertForSequenceClassification(BertConfig(**TINY))
    examples = [{"input_ids": [7], "score": score} for score in (100.0, 300.0)]
    learns = task.training(examples, model)
    batch = {name: torch.from_numpy(value) for name, value in learns.collate(examples, 0).items()}
    assert float(learns.loss({"logits": torch.zeros(2, 1)}, batch, 0.1)) == pytest.approx(1.0)
    assert float(learns.loss({"logits": torch.tensor([[-1.0], [1.0]])}, batch, 0.1)) == pytest.approx(0.0)


def test_a_last_layer_without_a_bias_is_only_scaled() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 1, bias=False))
    learns = task.training([{"score": 3.0}, {"score": 4.0}], model)
    assert (learns.mean, learns.std) == (0.0, pytest.approx(np.sqrt(12.5)))
    before = model[0].weight.detach().clone()
    learns.finish(model)
    torch.testing.assert_close(model[0].weight.detach(), before * learns.std)


def test_what_cannot_be_learned_is_refused() -> None:
    model = torch.nn.Linear(4, 1)
    with pytest.raises(DataError, match="every score in train is 2"):
        task.training([{"score": 2.0}, {"score": 2.0}], model)
    with pytest.raises(ModelError, match="2 trained layers of Sequential say one number"):
        task.training([{"score": 2.0}, {"score": 3.0}], torch.nn.Sequential(model, torch.nn.Linear(4, 1)))
