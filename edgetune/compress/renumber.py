"""Entries dropped from everything that counts them: the tokenizer's definition, the embeddings, the configuration.

`ids` maps each id that stays to its new one, in every function here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from edgetune.errors import ModelError

# Keys of config.json and generation_config.json that hold lists of ids (or lists of such lists) and may lose some of them.
LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


def definition(old: Mapping[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """tokenizer.json with only the entries of `ids`: model, added tokens, padding, post-processor."""
    new = copy.deepcopy(dict(old))
    model = new["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {entry: ids[i] for entry, i in sorted(model["vocab"].items(), key=lambda item: item[1]) if i in ids}
    else:
        model["vocab"] = [item for i, item in enumerate(model["vocab"]) if i in ids]
    if model.get("unk_id") is not None:
        model["unk_id"] = ids[model["unk_id"]]
    if "merges" in model:
        prefix = len(model["continuing_subword_prefix"] or "")
        pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
        vocab = model["vocab"]
        model["merges"] = [[a, b] for a, b in pairs if a in vocab and b in vocab and a + b[prefix:] in vocab]
    new["added_tokens"] = sorted(({**token, "id": ids[token["id"]]} for token in new["added_tokens"]), key=lambda token: token["id"])
    if new["padding"]:
        new["padding"]["pad_id"] = ids[new["padding"]["pad_id"]]
    for processor in _processors(new["post_processor"]):
        for token in processor.get("special_tokens", {}).values():
            token["ids"] = [ids[i] for i in token["ids"]]
        for name in ("sep", "cls"):
            if name in processor:
                processor[name] = [processor[name][0], ids[processor[name][1]]]
    return new


def always_kept(old: Mapping[str, Any]) -> set[int]:
    """Ids that tokenizer.json itself names: added tokens, unknown token, padding, post-processor."""
    model = old["model"]
    found = {token["id"] for token in old["added_tokens"]}
    if model.get("unk_id") is not None:
        found.add(model["unk_id"])
    if isinstance(model["vocab"], dict) and model.get("unk_token") in model["vocab"]:
        found.add(model["vocab"][model["unk_token"]])
    if old["padding"]:
        found.add(old["padding"]["pad_id"])
    for processor in _processors(old["post_processor"]):
        for token in processor.get("special_tokens", {}).values():
            found.update(token["ids"])
        found.update(processor[name][1] for name in ("sep", "cls") if name in processor)
    return found


def named_in(settings: Mapping[str, Any]) -> set[int]:
    """The ids under *_token_id in a configuration, nested ones included."""
    found: set[int] = set()
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= named_in(value)
        elif key.endswith("_token_id"):
            found.update(i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int))
    return found


def settings(old: Mapping[str, Any], ids: Mapping[int, int]) -> dict[str, Any]:
    """A configuration with its token ids renumbered. An id that no entry has (a default for another vocabulary) becomes null."""
    new: dict[str, Any] = {}
    for key, value in old.items():
        if isinstance(value, Mapping):
            if key == "added_tokens_decoder":
                new[key] = {str(ids[int(i)]): token for i, token in value.items() if int(i) in ids}
            else:
                new[key] = settings(value, ids)
        elif key.endswith("_token_id"):
            if isinstance(value, list):
                new[key] = [ids[i] for i in value if i in ids] or None
            else:
                new[key] = value if value is None or value < 0 else ids.get(value)
        elif key in LISTS and value:
            new[key] = [item for item in (_sequence(item, ids) for item in value) if item is not None] or None
        else:
            new[key] = value
    return new


def weights(model: Any, ids: Mapping[int, int]) -> None:
    """Keep the rows of `ids` in the input embedding and the language-model head of a transformers model, tied or not, in place.

    Raises ModelError when a kept id has no row, or when the model has another table over its vocabulary.
    """
    import torch

    old = model.get_input_embeddings().weight.detach().clone()
    head = model.get_output_embeddings()
    rows = torch.tensor(sorted(ids, key=ids.__getitem__))
    if int(rows.max()) >= len(old):
        raise ModelError(f"the tokenizer has entries up to {int(rows.max())}, the model has rows for {len(old)}")
    before = {name for name, value in model.state_dict().items() if value.ndim and value.shape[0] == len(old)}
    head_weight = head.weight.detach().clone() if head is not None else None
    head_bias = head.bias.detach().clone() if head is not None and getattr(head, "bias", None) is not None else None
    model.resize_token_embeddings(len(rows), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(old[rows])
        if head_weight is not None:
            model.get_output_embeddings().weight.copy_(head_weight[rows])
        if head_bias is not None:
            model.get_output_embeddings().bias.copy_(head_bias[rows])
    if len(rows) < len(old):
        left = sorted(name for name, value in model.state_dict().items() if name in before and value.shape[0] == len(old))
        if left:
            raise ModelError(f"{type(model).__name__} has more tables over its vocabulary than its embedding: {', '.join(left)}")


def _processors(processor: Any) -> Iterator[dict[str, Any]]:
    if processor:
        yield processor
        for inner in processor.get("processors", ()):
            yield from _processors(inner)


def _sequence(item: Any, ids: Mapping[int, int]) -> Any:
    """An id, or a list of ids, renumbered; None when a part of it is gone."""
    if isinstance(item, list):
        return [ids[i] for i in item] if all(i in ids for i in item) else None
    return ids.get(item)
