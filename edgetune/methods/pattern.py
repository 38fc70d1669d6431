"""A language model asked in its own words: a pattern with a gap around the text, and a word of the vocabulary for each label.

Pattern-exploiting training (Schick and Schütze, arXiv:2001.07676): what the model says in the gap, of the labels' words alone, is the answer.
`verbaliser` learns from no row; `pattern` goes on from there with the rows. The pattern is in tokenizer.json, the words are the head's first weights
(the mean of their tokens' rows), and its first bias takes back what the model says whatever the text (batch calibration, arXiv:2309.17249).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from edgetune import progress
from edgetune.data import descriptions
from edgetune.errors import RecipeError
from edgetune.methods import templates
from edgetune.methods.examples import Given
from edgetune.methods.full import merge, restore, save
from edgetune.methods.model import base_config, load_base, load_tokenizer, start, tokenizer_in
from edgetune.recipe import Recipe
from edgetune.tasks.pattern_classifier import PatternClassifier

__all__ = ["attach", "begin", "merge", "restore", "save"]

PATTERNS = {"masked": "{text} It is about {label}.", "causal": "{text}\nIt is about {label}"}
MOST_TEXTS = 256  # of train, that the first bias is made of
ENDS = {"ForMaskedLM": "masked", "ForPreTraining": "masked", "ForCausalLM": "causal", "LMHeadModel": "causal"}
MEND = "choose a language model (a BERT with its masked head, a Llama), or --method few-shot, which reads any encoder"


def attach(recipe: Recipe, labels: Sequence[str]) -> PreTrainedModel:
    """The base with a row a label in its output layer, which already answers. Raises RecipeError for words that it cannot tell apart."""
    kind, tokenizer = kind_of(recipe), load_tokenizer(recipe)
    as_task = {"masked": "fill-mask", "causal": "text-generation"}[kind]
    speaks = load_base(recipe.model_copy(update={"task": as_task, "method": "full"}), ())
    config = speaks.config
    config.id2label, config.label2id = dict(enumerate(labels)), {label: i for i, label in enumerate(labels)}
    config.gap_token_id = tokenizer.mask_token_id if kind == "masked" else None
    config.pad_token_id = tokenizer.pad_token_id
    model = PatternClassifier.from_config(config)
    config.architectures = ["PatternClassifier"]
    output, words = speaks.get_output_embeddings(), _words(recipe, labels)
    _copy(speaks, model)
    with torch.no_grad():
        rows = [output.weight[ids].mean(0) for ids in words]
        bias = [output.bias[ids].mean() if output.bias is not None else torch.zeros(()) for ids in words]
        model.get_output_embeddings().weight.copy_(torch.stack(rows))
        model.get_output_embeddings().bias.copy_(torch.stack(bias))
    model.requires_grad_(recipe.method == "pattern")
    return model


def begin(model: PreTrainedModel, given: Given) -> None:
    """The bias of the head such that no label is likelier than another over the texts of train, whose labels are not looked at."""
    places = np.random.default_rng(0).permutation(len(given.splits["train"]))[:MOST_TEXTS]
    with progress.silent():
        said = given.scored(model.eval(), [given.splits["train"][i] for i in places], "train").logits
    assert said is not None
    prior = torch.from_numpy(said).log_softmax(-1).logsumexp(0) - math.log(len(said))
    with torch.no_grad():
        model.get_output_embeddings().bias -= prior.to(model.device)


def check(recipe: Recipe) -> None:
    """Raises RecipeError for a base that speaks no words, and for a pattern that has no place for text and label; loads no weight."""
    _parts(recipe, kind_of(recipe))


def kind_of(recipe: Recipe) -> str:
    """masked or causal. Raises RecipeError for a base without a language model's head."""
    config = base_config(recipe)
    named = [kind for name in config.architectures or () for end, kind in ENDS.items() if name.endswith(end)]
    if named or start(recipe).gguf:
        return named[0] if named else "causal"
    made_of = ", ".join(config.architectures or ()) or "no architecture"
    raise RecipeError(f"method {recipe.method} needs a language model's head, and {recipe.model} has none ({made_of})", mend=MEND)


def patterned(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> PreTrainedTokenizerBase:
    """`tokenizer`, which puts the pattern around every text from here on, in whatever loads what it saves."""
    before, after = _parts(recipe, kind_of(recipe))
    pieces = [[token for part in side for token in _pieces(tokenizer, part)] for side in (before, after)]
    return templates.around(tokenizer, *pieces)


def _parts(recipe: Recipe, kind: str) -> tuple[list[str], list[str]]:
    """What stands before and after the text: literal words, and {label}. Raises RecipeError."""
    pattern = recipe.pattern.text or PATTERNS[kind]
    parts = [part for part in re.split(r"(\{\w+\})", pattern) if part]
    places = [part for part in parts if re.fullmatch(r"\{\w+\}", part)]
    if sorted(places) != ["{label}", "{text}"]:
        raise RecipeError(f'pattern.text = "{pattern}" must name {{text}} and {{label}}, each once', mend=f'such as "{PATTERNS[kind]}"')
    if kind == "causal" and parts[-1] != "{label}":
        raise RecipeError(
            f'pattern.text = "{pattern}" does not end with {{label}}: a causal model says what comes next',
            mend=f'such as "{PATTERNS[kind]}"',
        )
    label = parts.index("{label}")
    if label:
        parts[label - 1] = parts[label - 1].rstrip(" ")
    if kind == "causal":
        parts.pop()
    text = parts.index("{text}")
    return parts[:text], parts[text + 1 :]


def _pieces(tokenizer: PreTrainedTokenizerBase, part: str) -> list[str]:
    if part == "{label}":
        return [tokenizer.mask_token]
    found: list[str] = tokenizer.tokenize(part)
    return found


def _words(recipe: Recipe, labels: Sequence[str]) -> list[list[int]]:
    """The tokens that stand for each label, as they follow another word. Raises RecipeError."""
    plain = tokenizer_in(start(recipe).folder, start(recipe).gguf, recipe.trust_remote_code)
    filler = plain("is", add_special_tokens=False)["input_ids"]
    found: list[list[int]] = [[] for _ in labels]
    for row in descriptions.rows(recipe, labels):
        ids = plain(f"is {row['text']}", add_special_tokens=False)["input_ids"][len(filler) :]
        found[labels.index(row["label"])] += [i for i in ids if i != plain.unk_token_id]
    for i, ids in enumerate(found):
        same = next((labels[j] for j in range(i) if sorted(set(found[j])) == sorted(set(ids))), None)
        if not ids or same is not None:
            why = f'the same words as "{same}"' if ids else "no word that the model knows"
            raise RecipeError(
                f'label "{labels[i]}" has {why}', mend="say what labels mean: --descriptions FILE (columns label and description)"
            )
    return found


def _copy(speaks: PreTrainedModel, model: PreTrainedModel) -> None:
    """All weights but those of the output layer."""
    output = {id(weight) for weight in model.get_output_embeddings().parameters()}
    own = {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in output}
    given = {name: weight for name, weight in speaks.state_dict().items() if name not in own}
    missing, unexpected = model.load_state_dict(given, strict=False)
    assert set(missing) <= own and not unexpected, (missing, unexpected)
