"""How much memory training will take, before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from edgetune import methods, progress, tasks
from edgetune.methods import DOMAIN, EPISODIC, UNTAUGHT
from edgetune.methods import heads as parts
from edgetune.methods.device import Device
from edgetune.methods.model import auto_class, base_config
from edgetune.recipe import Recipe
from edgetune.tasks.rows import BATCH, SEQUENCE

MB = 1 << 20
ADAPTERS: dict[str, Callable[[int, int, int], int]] = {  # trained weights of a linear layer: (rank, reads, writes)
    "lora": lambda rank, reads, writes: rank * (reads + writes),
    "qlora": lambda rank, reads, writes: rank * (reads + writes),
    "dora": lambda rank, reads, writes: rank * (reads + writes) + writes,
    "oft": lambda block, reads, writes: reads * (block - 1) // 2,
    "ia3": lambda rank, reads, writes: writes,  # at most: not every layer has one
    "prompt-tuning": lambda rank, reads, writes: 0,  # a few vectors
    "p-tuning": lambda rank, reads, writes: 0,
}
TIGHT = 0.9


@dataclass(frozen=True)
class Estimate:
    """Bytes. Activations follow Korthikanti et al. (arXiv:2205.05198, eq. 1): s b h L (34 + 5 a s / h) at 2 bytes, and the logits."""

    weights: int
    adapter: int
    optimizer: int
    activations: int
    available: int

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.optimizer + self.activations


def outline(recipe: Recipe, labels: Sequence[str]) -> tuple[Any, torch.nn.Module]:
    """The base's configuration, and the model for the recipe's task on the meta device: shapes without weights."""
    config = base_config(recipe)
    config.id2label = dict(enumerate(labels or ("0", "1")))
    with torch.device("meta"):
        return config, auto_class(recipe.task).from_config(config, trust_remote_code=recipe.trust_remote_code)


def tokens(recipe: Recipe, facts: Mapping[str, Any]) -> int:
    """Tokens of the longest row, about, by the `facts` of the data: the rows of a batch are of like length, so that one batch is all of such."""
    characters = sum(column["max"] for column in facts["characters"]["train"].values())
    return min(recipe.adapt.max_length or 512, max(8, round(characters / 3)))


def estimate(recipe: Recipe, config: Any, meta: torch.nn.Module, rows: int, tokens: int, device: Device) -> Estimate:
    """What training with `rows` rows of `tokens` tokens at once will take. `meta`: the model on the meta device."""
    hidden = config.hidden_size
    layers = config.num_hidden_layers
    heads = config.num_attention_heads
    every = sum(weight.numel() for weight in meta.parameters())
    linear = [
        m for name, m in meta.named_modules() if isinstance(m, torch.nn.Linear) and not name.endswith(("lm_head", "classifier", "score"))
    ]
    in_linear = sum(module.weight.numel() for module in linear)
    trained, adapter, weights = every, 0, 4 * every
    if recipe.method in ADAPTERS:
        rank = methods.rank(recipe)
        trained = sum(ADAPTERS[recipe.method](rank, module.in_features, module.out_features) for module in linear)
        adapter = 4 * trained
    if recipe.method == "qlora":
        weights = 4 * (every - in_linear) + round(0.53 * in_linear)  # 4 bits and doubly quantised scales
    if recipe.method == "head":
        found = parts(name for name, _ in meta.named_parameters())
        trained = sum(weight.numel() for name, weight in meta.named_parameters() if found.intersection(name.split(".")))
    if recipe.method in ("linear-probe", *UNTAUGHT):
        trained = 0
    copies = 3  # of each trained weight: its gradient and two moments
    if recipe.method in EPISODIC:  # and those before an episode, what was found so far, and two moments inside it
        rows, copies = recipe.meta.ways * recipe.meta.shots, 7
    if recipe.method in DOMAIN:  # as many texts of the target domain are read beside them
        rows *= 2
    width = 2 if device.bf16 else 4
    activations = round(rows * tokens * hidden * layers * (34 + 5 * heads * tokens / hidden) * width / 2)
    task = tasks.get(recipe.task)
    of_tokens = not task.labelled and task.outputs == {"logits": (BATCH, SEQUENCE)}  # over the whole vocabulary
    activations += 3 * rows * tokens * getattr(config, "vocab_size", 0) * 4 if of_tokens else 0
    available = torch.cuda.mem_get_info()[0] if device.name == "cuda" else psutil.virtual_memory().available
    return Estimate(weights, adapter, 4 * copies * trained, activations, available)


def tell(estimate: Estimate, device: Device) -> None:
    """Print the estimate; warn past 90 % of what is free."""
    parts = {
        "weights": estimate.weights,
        "adapter": estimate.adapter,
        "gradients and optimizer": estimate.optimizer,
        "activations": estimate.activations,
    }
    shown = " + ".join(f"{name} {size / MB:,.0f}" for name, size in parts.items() if size)
    place = "GPU memory" if device.name == "cuda" else "RAM"
    progress.note(f"memory estimate: {shown} = {estimate.total / MB:,.0f} MB of {estimate.available / MB:,.0f} MB free {place}")
    if estimate.total > TIGHT * estimate.available:
        progress.warn(
            f"that is over {TIGHT:.0%} of the free {place}: use a smaller adapt.batch_size with adapt.accumulation, "
            "a shorter adapt.max_length, or method qlora"
        )
