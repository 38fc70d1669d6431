"""Episodes: what they are made of, and that the gradients are those of the papers, held against a computation without shortcuts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from edgetune import methods, tasks
from edgetune.methods import meta
from edgetune.methods.device import Device
from edgetune.methods.examples import encode
from edgetune.recipe import Recipe

CPU = Device("cpu", bf16=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bert(tmp_path_factory.mktemp("meta") / "model").parent


def made(folder: Path, rows: list[tuple[str, str]], **changes: Any) -> tuple[Any, meta.Episodes]:
    """A model, and episodes of `rows`."""
    recipe: Recipe = tiny.recipe(folder, **{"method": "reptile", "meta__ways": 3, "meta__shots": 2, "meta__learning_rate": 1e-2, **changes})
    task, labels = tasks.get("text-classification"), list(tiny.LABELS)
    tokenizer = tiny.tokenizer(folder / "model")
    given = [{"text": text, "label": label} for text, label in rows]
    examples = encode(task, given, tokenizer, 64, labels, "train")
    return meta.attach(recipe, labels), meta.training(methods.Lesson(recipe, task, labels, given, examples, tokenizer, 64, CPU, folder))


def test_an_episode_has_rows_of_some_labels_and_none_twice(folder: Path) -> None:
    few = [row for row in tiny.sentences(60, outside=5) if row[1] != "heat"]
    rows = [*few, *[(f"warm {i}", "heat") for i in range(3)]]
    _, episodes = made(folder, rows)
    assert len(episodes.examples) == (45 + 3) // (2 * 2 * 3)
    labels = [example["label"] for example in episodes.rows]
    torch.manual_seed(0)
    met = set()
    for _ in range(20):
        learned, asked = episodes._drawn()
        both = [row for row, _ in (*learned, *asked)]
        assert len(both) == len(set(both)), "a row is learned from or asked"
        of = [{labels[row] for row, own in (*learned, *asked) if own == label} for label in range(3)]
        assert all(len(one) == 1 for one in of) and len(set.union(*of)) == 3 and -1 not in set.union(*of)
        counts = [(sum(own == label for _, own in learned), sum(own == label for _, own in asked)) for label in range(3)]
        assert all(count == ((1, 1) if one == {tiny.LABELS.index("heat")} else (2, 2)) for count, one in zip(counts, of, strict=True))
        met |= set.union(*of)
    assert met == {0, 1, 2, 3}


@pytest.mark.parametrize("method", ["reptile", "maml"])
def test_gradients_by_hand(folder: Path, method: str) -> None:
    """On a copy of the model, with Adam written out; one episode a step, then the mean of two."""
    model, episodes = made(folder, tiny.sentences(60), method=method, meta__steps=2)
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    torch.manual_seed(3)
    losses, expected = [], []
    for _ in range(2):
        loss, gradient = by_hand(copy.deepcopy(model), episodes, method)
        losses.append(loss)
        expected.append(gradient)
    torch.manual_seed(3)
    loss = episodes.gradients(model, [{}, {}], CPU)
    assert loss == pytest.approx(sum(losses) / 2, rel=1e-5)
    for name, weight in weights.items():
        assert torch.equal(weight, before[name]), "the weights are as they were"
        if name.endswith("key.bias"):  # which no answer depends on: its gradient is rounding, made large by Adam
            continue
        wanted = (expected[0][name] + expected[1][name]) / 2
        assert weight.grad is not None and torch.allclose(weight.grad, wanted, rtol=1e-3, atol=1e-6), name
    assert any(weight.grad.abs().max() > 1e-4 for weight in weights.values())


def by_hand(model: Any, episodes: meta.Episodes, method: str) -> tuple[float, dict[str, torch.Tensor]]:
    learned, asked = episodes._drawn()

    def vectors(rows: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = tasks.padded([episodes.rows[row] for row, _ in rows], 0)
        said = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
        return said.sentence_embedding, torch.tensor([label for _, label in rows])

    said, labels = vectors(learned)
    head = torch.stack([said[labels == label].mean(0) for label in range(3)]).detach() / meta.TEMPERATURE
    head.requires_grad_()
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    start = {name: weight.detach().clone() for name, weight in weights.items()}
    squares = {name: torch.zeros_like(weight) for name, weight in {**weights, "head": head}.items()}
    losses = []
    for step in range(2):
        said, labels = vectors(learned if method == "maml" or step == 0 else asked)
        loss = torch.nn.functional.cross_entropy(said @ head.T, labels)
        losses.append(loss.item())
        trained = {**weights, "head": head}
        found = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        with torch.no_grad():
            for (name, weight), gradient in zip(trained.items(), found, strict=True):
                if gradient is not None:
                    squares[name] = 0.999 * squares[name] + 0.001 * gradient**2
                    scale = (squares[name] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                    weight -= (1e-2 if name != "head" else 1.0) * gradient / scale
    if method == "reptile":
        return sum(losses) / 2, {name: start[name] - weight.detach() for name, weight in weights.items()}
    said, labels = vectors(asked)
    loss = torch.nn.functional.cross_entropy(said @ head.T, labels)
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return loss.item(), {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), found, strict=True)
    }
