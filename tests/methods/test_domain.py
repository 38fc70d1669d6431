"""A labelled source and unlabelled target texts: what is aligned, what is left of it, what is compared, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file

from edgetune import pipeline, tasks
from edgetune.errors import DataError, EdgetuneError, RecipeError
from edgetune.methods import DOMAIN, METHODS, domain
from edgetune.methods.loop import Problem
from edgetune.recipe import Recipe
from edgetune.workspace import Workspace

EXACT = {"adapt__dropout": 0.0, "adapt__epochs": 1, "adapt__batch_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy problem, and its target domain: the same labels, half of the words in other letters."""
    place = tiny.problem(tmp_path_factory.mktemp("domain"), rows=120)
    far = [(text.replace("o", "q").replace("e", "x"), label) for text, label in tiny.sentences(160, seed=3)]
    (place / "target.txt").write_text("\n".join(text for text, _ in far[:120]), "utf-8")
    tiny.table(place / "far.csv", far[120:])
    return place


def asked(folder: Path, method: str, output: Path, **changes: Any) -> Recipe:
    texts = str(folder / "target.txt")
    return tiny.recipe(folder, **{"method": method, "domain__unlabelled": texts, "output": str(output), **EXACT, **changes})


def outputs(folder: Path, method: str) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """A model as it is trained, and what it says of four source and four target texts."""
    recipe = asked(folder, method, folder / "never")
    model = domain.attach(recipe, tiny.LABELS).train()
    ids = torch.randint(5, 60, (8, 6), generator=torch.Generator().manual_seed(0))
    return recipe, model, model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_the_gradient_of_the_domain_classifier_is_reversed_before_the_features(folder: Path) -> None:
    _, model, said = outputs(folder, "dann")
    distance = domain.DISTANCES["dann"][0]
    weights = [model.bert.embeddings.word_embeddings.weight, model.domain_classifier[0].weight]
    reversed_, own = torch.autograd.grad(distance(said, 4), weights, retain_graph=True)
    said["domain_logits"] = model.domain_classifier(said["features"])
    plain, same = torch.autograd.grad(distance(said, 4), weights)
    torch.testing.assert_close(reversed_, -plain)
    torch.testing.assert_close(own, same)
    assert float(plain.abs().max()) > 0
    assert "features" not in model.eval()(input_ids=torch.tensor([[2, 3]]), attention_mask=torch.ones(1, 2, dtype=torch.long))


@pytest.mark.parametrize("method", ["coral", "mmd"])
def test_distances_are_zero_for_the_same_features_and_grow_with_what_differs(method: str) -> None:
    distance = domain.DISTANCES[method][0]
    one = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    other = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    same, near, far = (float(distance({"features": torch.cat([one, two])}, 64)) for two in (one, other, 3 * other + 1))
    assert abs(same) < 1e-6 < near < far / 5
    if method == "coral":
        source, target = np.cov(one.numpy().T), np.cov((3 * other + 1).numpy().T)
        assert far == pytest.approx(((source - target) ** 2).sum() / np.linalg.norm(source) / np.linalg.norm(target), rel=1e-4)


def test_a_batch_has_as_many_target_texts_of_like_rank_in_length(folder: Path) -> None:
    class Toy:
        recipe = asked(folder, "dann", folder / "never")
        task = tasks.get("text-classification")
        labels = tiny.LABELS
        examples = tuple({"input_ids": [2] * n, "label": n % 4} for n in range(1, 101))

    learns = domain.Domains(Toy(), [{"input_ids": [7] * (3 * n)} for n in range(1, 51)])  # type: ignore[arg-type]
    batch = learns.collate(learns.examples[40:48], 0)
    assert batch["input_ids"].shape[0] == 16 and (batch["labels"][8:] == -100).all() and (batch["labels"][:8] >= 0).all()
    lengths = batch["attention_mask"].sum(-1)
    assert set(batch["input_ids"][8:, 0]) == {7} and lengths[8:].min() >= 3 * 18 and lengths[8:].max() <= 3 * 27
    learns.at(0.0)
    start = learns._now
    learns.at(1.0)
    assert start == 0 and learns._now == pytest.approx(domain.DISTANCES["dann"][1], rel=1e-3)
    assert Problem(learns, learns.examples, 0, dict, lambda found: (0.0, 0.0), ()).labels_per_row == 1  # type: ignore[arg-type]


def test_a_run_ships_the_plain_classifier_and_is_compared_with_source_only(folder: Path, tmp_path: Path) -> None:
    sets = f"far={folder / 'far.csv'}"
    run = Workspace(pipeline.run(asked(folder, "dann", tmp_path / "run", data__other_tests=sets, adapt__baselines=True), "merge"))
    done = run.manifest["stages"]
    assert not any("domain" in name for name in load_file(run.path / "merged" / "model.safetensors"))
    assert not any("domain" in name for name in load_file(run.path / "source_only" / "model.safetensors"))
    found = done["other_tests"]["facts"]["sets"]
    assert found["test"]["metrics"] == pytest.approx(done["adapt"]["facts"]["test"])
    assert found["test"]["source_only"]["metrics"] == pytest.approx(done["source_only"]["facts"]["test"])
    far = found["far"]
    gained = far["metrics"]["accuracy"] - far["source_only"]["metrics"]["accuracy"]
    assert far["source_only"]["difference"]["value"] == pytest.approx(gained)
    assert "source-only" in (run.path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("method", ["coral", "mmd"])
def test_without_strength_it_is_source_only(method: str, folder: Path, tmp_path: Path) -> None:
    """So that a batch whose halves are mixed up is seen."""
    logits = []
    for name, keys in ((method, {"domain__strength": 0.0}), ("full", {"domain__unlabelled": ""})):
        path = pipeline.run(asked(folder, name, tmp_path / name, adapt__max_steps=6, **keys), "adapt")
        logits.append(load_file(path / "checkpoint" / "model.safetensors")["classifier.weight"])
    torch.testing.assert_close(*logits, atol=2e-4, rtol=1e-3)


def test_target_texts_change_what_is_learned(folder: Path, tmp_path: Path) -> None:
    steps = {"adapt__max_steps": 4}
    runs = [pipeline.run(asked(folder, "coral", tmp_path / str(s), domain__strength=s, **steps), "adapt") for s in (0.0, 10.0)]
    before, after = (load_file(run / "checkpoint" / "model.safetensors")["bert.pooler.dense.weight"] for run in runs)
    assert float((before - after).abs().max()) > 1e-3


def test_what_cannot_be_adapted_to_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labelled.csv").write_text("text,label\na lamp,lights\n")
    (tmp_path / "empty.txt").write_text("\n")
    cases: dict[str, tuple[type[EdgetuneError], str, dict[str, Any]]] = {
        "none": (RecipeError, "needs texts of the target domain", {"domain__unlabelled": ""}),
        "gone": (DataError, "there is nothing at", {"domain__unlabelled": str(tmp_path / "gone.txt")}),
        "empty": (DataError, "holds no text", {"domain__unlabelled": str(tmp_path / "empty.txt")}),
        "labelled": (DataError, 'has labels \\(column "label"\\)', {"domain__unlabelled": str(tmp_path / "labelled.csv")}),
        "twice": (
            RecipeError,
            "both learn from texts without labels",
            {"augment__kinds": "self-training", "augment__unlabelled": str(folder / "target.txt")},
        ),
        "full": (RecipeError, "unlabelled is given, but method full reads no target texts", {"method": "full"}),
        "auto": (RecipeError, "method auto reads no target texts", {"method": "auto"}),
        "task": (RecipeError, "does not fit multi-label", {"task": "multi-label-classification"}),
    }
    for name, (kind, message, keys) in cases.items():
        with pytest.raises(kind, match=message):
            pipeline.run(asked(folder, **{"method": "dann", "output": tmp_path / "run", **keys}), "adapt")
        assert not (tmp_path / "run").exists(), name


def test_every_method_has_a_distance() -> None:
    assert set(DOMAIN) == set(domain.DISTANCES) == {name for name, row in METHODS.items() if row.module == "edgetune.methods.domain"}
