"""A pattern with a gap, words for labels: what is read, what the model says before it learns, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conformance import models
from tokenizers import Tokenizer, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM

from edgetune import pipeline, tasks
from edgetune.errors import DataError, RecipeError
from edgetune.methods import pattern, templates
from edgetune.methods.model import load_merged, load_tokenizer
from edgetune.recipe import Recipe, load
from edgetune.tasks.pattern_classifier import PatternClassifier
from edgetune.workspace import Workspace

TEXTS = [text for text, _ in tiny.sentences(120)]
BASES = {"masked": models.masked, "causal": models.decoder}


def recipe(folder: Path, method: str = "verbaliser", **keys: Any) -> Recipe:
    return load(None, {"model": str(folder), "task": "text-classification", "method": method, **keys})


@pytest.fixture(scope="module", params=BASES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    words = [*TEXTS, *tiny.LABELS, "It is about door. N/A"]
    return request.param, BASES[request.param](tmp_path_factory.mktemp(request.param) / "model", words)


def test_the_pattern_is_around_every_text_in_whatever_loads_the_tokenizer(base: tuple[str, Path], tmp_path: Path) -> None:
    kind, folder = base
    plain, made = AutoTokenizer.from_pretrained(folder), load_tokenizer(recipe(folder))
    made.save_pretrained(tmp_path)
    again, bare = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    whole = {"masked": "play the song It is about [MASK].", "causal": "play the song\nIt is about"}[kind]
    wanted = plain(whole)["input_ids"]
    for found in (made("play the song")["input_ids"], again("play the song")["input_ids"], bare.encode("play the song").ids):
        assert found == wanted
    cut = again("song " * 200, truncation=True, max_length=32)["input_ids"]
    about = plain.convert_tokens_to_ids(plain.tokenize("about")) if kind == "masked" else plain(" about")["input_ids"]
    assert len(cut) == 32 and set(about) <= set(cut[-8:]), "the text is cut, not the pattern"


def test_before_it_learns_it_says_what_the_language_model_says(base: tuple[str, Path]) -> None:
    """Of labels that are one token each, the logits are the language model's own, read at the gap."""
    kind, folder = base
    auto = {"masked": AutoModelForMaskedLM, "causal": AutoModelForCausalLM}[kind]
    speaks = auto.from_pretrained(folder).eval()
    asked = recipe(folder)
    model, tokenizer = pattern.attach(asked, tiny.LABELS).eval(), load_tokenizer(asked)
    words = pattern._words(asked, tiny.LABELS)
    rows = tokenizer(["play the song", "in my kitchen the lamp is dark and cold"], padding=True, return_tensors="pt")
    given = {name: rows[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        said, every = model(**given).logits, speaks(**given).logits
    for row in range(2):
        ids = given["input_ids"][row].tolist()
        place = ids.index(tokenizer.mask_token_id) if kind == "masked" else int(given["attention_mask"][row].sum()) - 1
        wanted = torch.stack([every[row, place, tokens].mean() for tokens in words])
        assert torch.allclose(said[row], wanted, atol=1e-4)
    assert not any(weight.requires_grad for weight in model.parameters())
    assert all(weight.requires_grad for weight in pattern.attach(recipe(folder, "pattern"), tiny.LABELS).parameters())


def test_no_label_is_likelier_than_another_over_the_texts(base: tuple[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny.table(tmp_path / "data.csv", tiny.sentences(120))
    _, folder = base
    asked = tiny.recipe(tmp_path, method="verbaliser", model=str(folder), output=str(run))
    facts: dict[str, Any] = Workspace(pipeline.run(asked, "merge")).manifest["stages"]["adapt"]["facts"]
    assert facts["steps"] == 0 and "verbaliser" not in facts["baselines"] and "untrained" not in facts["baselines"]
    model, tokenizer = load_merged(run / "merged", "text-classification"), AutoTokenizer.from_pretrained(run / "merged")
    rows = [json.loads(line) for line in (run / "data" / "train.jsonl").read_text("utf-8").splitlines()]
    examples = tasks.get("text-classification").module.encode(rows, tokenizer, max_length=64, labels=tiny.LABELS).examples
    with torch.no_grad():
        chances = torch.cat(
            [model(torch.tensor([one["input_ids"]]), torch.ones(1, len(one["input_ids"])).long()).logits for one in examples]
        )
    assert chances.softmax(-1).mean(0).max() < 0.5, "the bias takes back what is said whatever the text"
    assert json.loads((run / "merged" / "config.json").read_text("utf-8"))["architectures"] == ["PatternClassifier"]


FAMILIES: dict[str, Any] = {
    "bert": {"model_type": "bert"},
    "roberta": {"model_type": "roberta"},
    "distilbert": {"model_type": "distilbert", "dim": 16, "n_heads": 2, "n_layers": 2, "hidden_dim": 32},
    "electra": {"model_type": "electra", "embedding_size": 16},
    "albert": {"model_type": "albert", "embedding_size": 8},
    "mpnet": {"model_type": "mpnet"},
    "llama": {"model_type": "llama", "gap_token_id": None, "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2", "gap_token_id": None, "n_embd": 16, "n_head": 2, "n_layer": 2},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_same_on_disk(tmp_path: Path, family: str) -> None:
    from transformers import AutoConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    keys = {
        "gap_token_id": 4,
        "vocab_size": 50,
        "pad_token_id": 0,
        "num_labels": 3,
        **(sizes if family not in ("distilbert", "gpt2") else {}),
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**keys, **FAMILIES[family]})
    model = PatternClassifier.from_config(config).eval()
    ids = torch.tensor([[1, 5, 4, 7, 8], [1, 4, 9, 0, 0]])
    with torch.no_grad():
        model.get_output_embeddings().bias.uniform_()
        said = model(ids, (ids != 0).long()).logits
        model.save_pretrained(tmp_path)
        again = PatternClassifier.from_pretrained(tmp_path).eval()(ids, (ids != 0).long()).logits
    assert said.shape == (2, 3) and torch.equal(said, again)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("It is about {label}.", "must name"),
        ("{text} {text} {label}", "must name"),
        ("{text} is {labels}", "must name"),
        ("{label}: {text}", "does not end with"),
    ],
)
def test_a_pattern_that_cannot_be_filled_is_refused(tmp_path: Path, text: str, says: str) -> None:
    folder = models.decoder(tmp_path / "model", TEXTS)
    with pytest.raises(RecipeError, match=says):
        pattern.check(recipe(folder, **{"pattern.text": text}))


def test_a_gap_may_stand_before_the_text(tmp_path: Path) -> None:
    folder = models.masked(tmp_path / "model", [*TEXTS, "news : about"])
    made = load_tokenizer(recipe(folder, **{"pattern.text": "{label} news: {text}"}))
    assert made("play the song")["input_ids"] == AutoTokenizer.from_pretrained(folder)("[MASK] news: play the song")["input_ids"]


def test_what_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    tiny.problem(tmp_path, rows=80)
    with pytest.raises(RecipeError, match=r"needs a language model's head, and .* has none \(BertModel\)"):
        pipeline.run(tiny.recipe(tmp_path, method="pattern"), "adapt")
    with pytest.raises(RecipeError, match=r"pattern\.text is for verbaliser and pattern, and not for full"):
        pipeline.run(tiny.recipe(tmp_path, pattern__text="{text} {label}"), "adapt")
    BertForMaskedLM(BertConfig.from_pretrained(tmp_path / "model")).save_pretrained(tmp_path / "model")
    with pytest.raises(RecipeError, match="learns from no row"):
        pipeline.run(tiny.recipe(tmp_path, method="verbaliser", adapt__class_weights="balanced"), "adapt")
    rows = [(text, label) for text, label in tiny.sentences(40)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps({"text": t, "text_pair": t, "label": w}) + "\n" for t, w in rows), "utf-8")
    with pytest.raises(DataError, match="pairs of texts"):
        pipeline.run(tiny.recipe(tmp_path, method="pattern", data__path=str(tmp_path / "pairs.jsonl")), "adapt")
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*/*.safetensors"))


def test_labels_must_have_words_of_their_own(tmp_path: Path) -> None:
    folder = models.masked(tmp_path / "model", [*TEXTS, "door"])
    with pytest.raises(RecipeError, match='"key door" has the same words as "door key"'):
        pattern.attach(recipe(folder), ["door key", "key door"])
    with pytest.raises(RecipeError, match="no word that the model knows"):
        pattern.attach(recipe(folder), ["door", "扉"])


AROUND: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "bytes": lambda: processors.ByteLevel(trim_offsets=False),
    "bytes, then a template": lambda: processors.Sequence(
        [processors.ByteLevel(), processors.TemplateProcessing(single="<end> $A", pair="<end> $A $B:1", special_tokens=[("<end>", 1)])]
    ),
}


@pytest.mark.parametrize("kind", AROUND)
def test_tokens_around_a_text_of_any_tokenizer(tmp_path: Path, kind: str) -> None:
    plain = AutoTokenizer.from_pretrained(models.decoder(tmp_path, TEXTS))
    plain.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if AROUND[kind]() is not None:
        plain.backend_tokenizer.post_processor = AROUND[kind]()
    before, after = plain.tokenize("now"), plain.tokenize(" please")
    made = templates.around(plain, before, after)
    ids = [plain.convert_tokens_to_ids(tokens) for tokens in (before, after)]
    for texts in (("play",), ("play", "the song")):
        own = plain("play", add_special_tokens=False)["input_ids"]
        rest = plain(*texts)["input_ids"]
        start = rest.index(own[0])
        assert made(*texts)["input_ids"] == [*rest[:start], *ids[0], *own, *ids[1], *rest[start + len(own) :]]
