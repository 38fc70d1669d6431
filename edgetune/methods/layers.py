"""The layers of a model."""

from __future__ import annotations

import torch


def stacks(model: torch.nn.Module) -> list[tuple[str, torch.nn.ModuleList]]:
    """Each list of as many layers as the configuration says, and the name that it is found under; most models have one."""
    count = getattr(getattr(model, "config", None), "num_hidden_layers", 0)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count]
