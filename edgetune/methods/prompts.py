"""Prompts without words: tokens that mean nothing before they are trained, put before every text by the tokenizer itself.

Prompt tuning (Lester et al., arXiv:2104.08691) and p-tuning (Liu et al., arXiv:2103.10385) prepend vectors to what a model reads. As entries of
the vocabulary they need nothing of a graph or an app: an encoder's tokenizer puts them after its first special token, a decoder's chat
template before the conversation, and tokenizer.json, which ships, does the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PromptEncoder, PromptEncoderConfig
from tokenizers import Tokenizer
from torch.nn.utils import parametrize
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from edgetune import tasks
from edgetune.errors import RecipeError
from edgetune.recipe import Recipe

PLACES: dict[
    str, Mapping[str, Sequence[str]]
] = {  # what a tokenizer whose definition is no template puts around texts: cls, sep, and texts by type
    "BertProcessing": {"single": ("cls", "A0", "sep0"), "pair": ("cls", "A0", "sep0", "B1", "sep1")},
    "RobertaProcessing": {"single": ("cls", "A0", "sep0"), "pair": ("cls", "A0", "sep0", "sep0", "B0", "sep0")},
}
DELTA = "trainable_tokens_delta"  # what peft calls the rows of the embeddings that it trains


def names(recipe: Recipe) -> list[str]:
    return [f"<prompt-{i}>" for i in range(recipe.prompt.tokens)]


def prompted(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> PreTrainedTokenizerBase:
    """`tokenizer`, whose texts begin with the prompt from here on, in whatever loads what it saves. Raises RecipeError."""
    prompt = names(recipe)
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=True) for name in prompt], special_tokens=True)
    if tasks.get(recipe.task).family == "decoder":
        if not tokenizer.chat_template:
            raise _refused(recipe, "its tokenizer has no chat template, which would put the prompt before a text")
        tokenizer.chat_template = "".join(prompt) + str(tokenizer.chat_template)
        return tokenizer
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = [_template(part) for part in _processors(definition["post_processor"])]
    template = next((part for part in parts if part["type"] == "TemplateProcessing"), None)
    if template is None or any("SpecialToken" not in template[kind][0] for kind in ("single", "pair")):
        raise _refused(recipe, "its tokenizer does not put a special token before a text by a template")
    for kind in ("single", "pair"):
        template[kind][1:1] = [{"SpecialToken": {"id": name, "type_id": 0}} for name in prompt]
    template["special_tokens"] |= {name: {"id": name, "ids": [tokenizer.convert_tokens_to_ids(name)], "tokens": [name]} for name in prompt}
    # A class of an architecture of its own writes its template anew when it is loaded; this one takes tokenizer.json as it is.
    kept: dict[str, Any] = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    kept |= {"model_max_length": tokenizer.model_max_length, "model_input_names": tokenizer.model_input_names}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(definition)), **kept)


def reparametrize(model: torch.nn.Module, seed: int) -> None:
    """The trained rows of the embeddings become what a small network makes of rows of its own (p-tuning)."""
    for place in _deltas(model):
        tokens, width = place["default"].shape
        config = PromptEncoderConfig(num_virtual_tokens=tokens, token_dim=width, encoder_hidden_size=width, num_transformer_submodules=1)
        torch.manual_seed(seed)
        parametrize.register_parametrization(place, "default", _Network(PromptEncoder(config).mlp_head), unsafe=True)


def settle(model: torch.nn.Module) -> None:
    """The rows that the network gives now, without the network; nothing where there is none."""
    for place in _deltas(model):
        if parametrize.is_parametrized(place):
            parametrize.remove_parametrizations(place, "default", leave_parametrized=True)


class _Network(torch.nn.Module):
    def __init__(self, made: torch.nn.Module) -> None:
        super().__init__()
        self.made = made

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """[tokens, hidden] -> the same."""
        found: torch.Tensor = self.made(rows)
        return found


def _deltas(model: torch.nn.Module) -> list[Any]:
    return [module for name, module in model.named_modules() if name.endswith(DELTA)]


def _processors(processor: Any) -> list[dict[str, Any]]:
    if not processor:
        return []
    return [inner for part in processor["processors"] for inner in _processors(part)] if processor["type"] == "Sequence" else [processor]


def _template(part: dict[str, Any]) -> dict[str, Any]:
    """`part` of a definition, which becomes a template in place where it is one by another name."""
    places = PLACES.get(part["type"])
    if places:
        own = {name: part[name] for name in ("cls", "sep")}
        part.clear()
        part |= {
            "type": "TemplateProcessing",
            **{kind: [_piece(name, own) for name in order] for kind, order in places.items()},
            "special_tokens": {token: {"id": token, "ids": [i], "tokens": [token]} for token, i in own.values()},
        }
    return part


def _piece(name: str, own: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """ "cls", "sep" or a text, and the type of its tokens, as a template has it."""
    kind, number = name.rstrip("01"), int(name[-1]) if name[-1] in "01" else 0
    return {"SpecialToken": {"id": own[kind][0], "type_id": number}} if kind in own else {"Sequence": {"id": kind, "type_id": number}}


def _refused(recipe: Recipe, reason: str) -> RecipeError:
    return RecipeError(f"method {recipe.method} does not fit {recipe.model}: {reason}", mend="--method lora")
