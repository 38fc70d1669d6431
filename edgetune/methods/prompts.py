"""Prompts without words: tokens that mean nothing before they are trained, put before every text by the tokenizer itself.

Prompt tuning (Lester et al., arXiv:2104.08691) and p-tuning (Liu et al., arXiv:2103.10385) prepend vectors to what a model reads. As entries of
the vocabulary they need nothing of a graph or an app: an encoder's tokenizer puts them after its first special token, a decoder's chat
template before the conversation, and tokenizer.json, which ships, does the same.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PromptEncoder, PromptEncoderConfig
from torch.nn.utils import parametrize
from transformers import AddedToken, PreTrainedTokenizerBase

from edgetune import tasks
from edgetune.errors import RecipeError
from edgetune.methods import templates
from edgetune.recipe import Recipe

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
    return templates.around(tokenizer, prompt)


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


def _refused(recipe: Recipe, reason: str) -> RecipeError:
    return RecipeError(f"method {recipe.method} does not fit {recipe.model}: {reason}", mend="--method lora")
