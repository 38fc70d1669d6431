"""The base in 4 bits: NormalFloat-4 with doubly quantised scales (QLoRA, arXiv:2305.14314), by bitsandbytes.

Weights are always quantised on the CPU, so that training on a GPU and merging on a CPU see the same numbers.
"""

from __future__ import annotations

from typing import Any

import bitsandbytes
import torch
from transformers import PreTrainedModel

from edgetune.errors import ModelError
from edgetune.methods import HEADS

MARK = "is_loaded_in_4bit"  # by this attribute peft knows such a model


class Linear4bit(bitsandbytes.nn.Linear4bit):
    """A frozen linear layer in NF4 that computes in autocast's dtype, else in its input's.

    bitsandbytes' own forward repacks the weights in place at the first evaluation on a CPU with AVX512-BF16 and leaves autograd: from
    then on gradients and dequantised weights are wrong, without an error. This one never repacks.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, linear.bias is not None, quant_type="nf4", device="meta")
        self.support_avx512bf16_for_cpu = False
        weight = linear.weight.detach().cpu().contiguous()
        packed: Any = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=self)
        self.weight: Any = packed.to("cpu")
        self.bias = linear.bias
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kind = x.device.type
        x = x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return bitsandbytes.matmul_4bit(x, self.weight, quant_state=self.weight.quant_state, bias=bias)


def quantize(model: PreTrainedModel) -> PreTrainedModel:
    """Freeze `model` and put its linear layers, but for the heads, in 4 bits: in place.

    Raises ModelError when it has no linear layer to quantise.
    """
    heads = [head for head in (model.get_output_embeddings(),) if head is not None]
    linears = {
        name: module
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and not set(name.split(".")) & set(HEADS) and all(module is not head for head in heads)
    }
    if not linears:
        raise ModelError(f"{model.config.model_type} has no linear layer that bitsandbytes can hold in 4 bits", mend="use method lora")
    model.requires_grad_(False)
    for name, linear in linears.items():
        model.set_submodule(name, Linear4bit(linear))
    setattr(model, MARK, True)
    return model


def dequantize(model: PreTrainedModel) -> PreTrainedModel:
    """The float32 model that `quantize` left: exactly the layers that were in 4 bits, with the values that those bits stand for."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear4bit):
            linear = torch.nn.Linear(module.in_features, module.out_features, module.bias is not None, device="meta")
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            linear.weight = torch.nn.Parameter(weight.to(torch.float32), requires_grad=False)
            linear.bias = module.bias
            model.set_submodule(name, linear)
    delattr(model, MARK)
    return model
