"""Where and how precisely to compute."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune import progress
from edgetune.errors import RecipeError
from edgetune.sections import AdaptKeys
from edgetune.target import isa

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FAST_BF16 = {"avx512_bf16", "amx_bf16"}  # without these a CPU emulates bfloat16, slowly
FEW_TOKENS = 256  # a row: with more, fused attention is faster


@dataclass(frozen=True)
class Device:
    name: str  # cpu | cuda
    bf16: bool

    def autocast(self) -> AbstractContextManager[object]:
        import torch

        return torch.autocast(self.name, torch.bfloat16, enabled=self.bf16)

    @contextmanager
    def attention(self, model: PreTrainedModel, tokens: int) -> Iterator[None]:
        """How `model` computes the attention of rows of so many tokens where that is faster than as it is made: on a CPU in bfloat16 the gradient of
        torch's fused attention takes several times as long as three plain steps (benchmarks/LOG.md)."""
        plain = self.name == "cpu" and self.bf16 and tokens <= FEW_TOKENS and model.config._attn_implementation == "sdpa"
        if not plain:
            yield
            return
        model.config._attn_implementation = "eager"
        try:
            yield
        finally:
            model.config._attn_implementation = "sdpa"

    @property
    def torch(self) -> torch.device:
        import torch

        return torch.device(self.name)


def choose(keys: AdaptKeys) -> Device:
    """`auto`: CUDA where there is one, else the CPU; bfloat16 where the hardware has it. Says what was chosen."""
    import torch

    cuda = torch.cuda.is_available()
    if keys.device == "cuda" and not cuda:
        raise RecipeError("adapt.device = cuda, but torch sees no GPU here", mend="edgetune doctor says why; or use device auto")
    name = "cuda" if cuda and keys.device != "cpu" else "cpu"
    fast = torch.cuda.is_bf16_supported() if name == "cuda" else bool(FAST_BF16 & isa())
    device = Device(name, fast if keys.precision == "auto" else keys.precision == "bf16")
    progress.note(f"training on {name} in {'bfloat16' if device.bf16 else 'float32'} ({keys.device}, {keys.precision})")
    if name == "cpu":
        keep_freed_memory()
    return device


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks instead of returning them to the system (mallopt(3)): 6-10 % of a training step, 2 s of an export."""
    if sys.platform != "linux":
        return
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another libc
    mallopt(mmap_threshold, 32 << 20)  # the most that glibc takes
    mallopt(trim_threshold, 1 << 30)
    mallopt(top_pad, 64 << 20)
