"""Tokens that a tokenizer puts around every text by itself: in its tokenizer.json, so that whatever loads it does the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PLACES: dict[
    str, Mapping[str, Sequence[str]]
] = {  # what a tokenizer whose definition is no template puts around texts: cls, sep, and texts by type
    "BertProcessing": {"single": ("cls", "A0", "sep0"), "pair": ("cls", "A0", "sep0", "B1", "sep1")},
    "RobertaProcessing": {"single": ("cls", "A0", "sep0"), "pair": ("cls", "A0", "sep0", "sep0", "B0", "sep0")},
}
PLAIN: Mapping[str, Any] = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}  # of one that puts nothing


def around(tokenizer: PreTrainedTokenizerBase, before: Sequence[str], after: Sequence[str] = ()) -> PreTrainedTokenizerBase:
    """`tokenizer`, with these tokens of its vocabulary right before and after each text, or the first of a pair; truncation cuts the text alone."""
    definition = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = [_template(part) for part in _processors(definition["post_processor"])]
    if not any(part["type"] == "TemplateProcessing" for part in parts):
        parts.append(deepcopy(dict(PLAIN)))
        definition["post_processor"] = parts[0] if len(parts) == 1 else {"type": "Sequence", "processors": parts}
    template = next(part for part in parts if part["type"] == "TemplateProcessing")
    for kind in ("single", "pair"):
        place = next(i for i, piece in enumerate(template[kind]) if piece.get("Sequence", {}).get("id") == "A")
        type_id = template[kind][place]["Sequence"]["type_id"]
        own = [[{"SpecialToken": {"id": name, "type_id": type_id}} for name in names] for names in (before, after)]
        template[kind][place : place + 1] = [*own[0], template[kind][place], *own[1]]
    for name in dict.fromkeys([*before, *after]):
        template["special_tokens"][name] = {"id": name, "ids": [tokenizer.convert_tokens_to_ids(name)], "tokens": [name]}
    # A class of an architecture of its own writes its template anew when it is loaded; this one takes tokenizer.json as it is.
    kept: dict[str, Any] = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    kept |= {"model_max_length": tokenizer.model_max_length, "model_input_names": tokenizer.model_input_names}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(definition)), **kept)


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
