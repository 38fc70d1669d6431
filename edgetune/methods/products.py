"""Matrix products in float32 by oneDNN where MKL, which torch takes for them, uses half the processor: on AMD's with AVX-512, MKL stays at AVX2.

One core of a Zen 5: 98 GFLOP/s by MKL, 223 by oneDNN (benchmarks/LOG.md). In bfloat16 torch takes oneDNN by itself.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CPUINFO = Path("/proc/cpuinfo")


@contextmanager
def quick() -> Iterator[None]:
    """While it lasts, linear layers on the CPU are computed so, without gradients; nothing changes on other processors."""
    if not pays():
        yield
        return
    with _Quick():
        yield


@cache
def pays() -> bool:
    """True on a processor where MKL leaves AVX-512 unused."""
    maker = CPUINFO.read_text(errors="replace") if CPUINFO.exists() else platform.processor()
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    return known and torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512" and "AuthenticAMD" in maker


class _Quick(TorchFunctionMode):
    def __torch_function__(self, called: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        if called is torch.nn.functional.linear and not named and all(_plain(tensor) for tensor in given if tensor is not None):
            states, weight, bias = (*given, None)[:3]
            return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return called(*given, **(named or {}))


def _plain(tensor: torch.Tensor) -> bool:
    """True for dense numbers in float32 on the CPU."""
    return tensor.dtype is torch.float32 and tensor.device.type == "cpu" and tensor.layout is torch.strided and tensor.is_contiguous()
