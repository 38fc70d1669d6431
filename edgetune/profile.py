"""What a device is, as data: the sections of a target profile, and which of their values contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgetune.errors import did_you_mean

Family = Literal["encoder", "decoder", "seq2seq"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Architecture = Literal["x86_64", "aarch64", "wasm32"]
System = Literal["any", "linux", "macos", "windows", "android", "ios", "browser"]

CPU = "CPUExecutionProvider"
VNNI = {"vnni", "avx512_vnni", "avx_vnni", "amx_int8"}  # 8-bit dot products that sum in 32 bits
# Instruction sets that change what onnxruntime runs; "vnni" is either of avx512_vnni and avx_vnni.
ISA: dict[str, tuple[str, ...]] = {
    "x86_64": ("avx2", "vnni", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    "aarch64": ("neon", "dotprod", "fp16", "i8mm", "bf16"),
    "wasm32": ("simd128",),
}
# The release of onnxruntime that first loads an opset and an IR version (onnxruntime.ai/docs/reference/compatibility.html; 1.20 has neither
# opset 22 nor IR 11).
OPSETS = {17: "1.12", 18: "1.14", 19: "1.16", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.21"}
IRS = {8: "1.10", 9: "1.16", 10: "1.18", 11: "1.21"}


@dataclass(frozen=True)
class Provider:
    """An execution provider: the systems that have it (none: any), and whether it takes graphs with symbolic dimensions."""

    systems: tuple[System, ...] = ()
    dynamic: bool = True


PROVIDERS: dict[str, Provider] = {
    CPU: Provider(),
    "CUDAExecutionProvider": Provider(),
    "TensorrtExecutionProvider": Provider(),
    "QNNExecutionProvider": Provider(dynamic=False),
    "CoreMLExecutionProvider": Provider(("macos", "ios")),
    "DmlExecutionProvider": Provider(("windows",)),
    "OpenVINOExecutionProvider": Provider(),
    "WebGpuExecutionProvider": Provider(),
    "XnnpackExecutionProvider": Provider(),
    "NnapiExecutionProvider": Provider(("android",)),
}


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Runtime(Section):
    """What will load the file.

    `options` go to the provider. A graph with static `shapes` takes batch 1 and `sequence` tokens (fewer where the model was trained with
    fewer), and run.py pads; `ids` is the integer type of its inputs. A bundle is refused where the provider takes less than `min_share`
    of the nodes.
    """

    provider: str = CPU
    options: dict[str, str] = {}
    onnxruntime_min: str = Field("1.23", pattern=r"^\d+\.\d+$")
    opset: int = Field(20, ge=min(OPSETS), le=max(OPSETS))
    ir: int = Field(10, ge=min(IRS), le=max(IRS))
    shapes: Literal["dynamic", "static"] = "dynamic"
    sequence: int | None = Field(None, ge=1)
    ids: Literal["int64", "int32"] = "int64"
    min_share: float = Field(0.0, ge=0, le=1)


class Session(Section):
    """Options of an onnxruntime session: threads of one operator, whether idle ones spin, level of graph optimisation, memory arena,
    and weights packed ahead for the CPU's kernels (faster, but a second copy in memory)."""

    threads: int = Field(1, ge=1)
    spinning: bool = True
    optimization: Literal["disabled", "basic", "extended", "all"] = "all"
    arena: bool = True
    prepacking: bool = True


class Quantization(Section):
    """Schemes in order of preference, by family of model (none: such a model does not run there); `float_ops`: types of operators that
    stay in float; `saturates`: 8-bit dot products overflow 16-bit sums (x86 without VNNI)."""

    encoder: tuple[str, ...] = ()
    decoder: tuple[str, ...] = ()
    seq2seq: tuple[str, ...] = ()
    float_ops: tuple[str, ...] = ()
    saturates: bool = False


class Budget(Section):
    size_mb: float | None = Field(None, gt=0)
    memory_mb: float | None = Field(None, gt=0)
    max_drop: float = Field(0.01, ge=0, le=1)
    max_perplexity_increase: float = Field(0.10, ge=0)


class Emulator(Section):
    """qemu's name of the architecture and of the CPU that stands for the device."""

    qemu: Literal["x86_64", "aarch64"]
    cpu: str


class Target(Section):
    """A device. `board` is how /proc/device-tree/model begins there; `cores` and `memory_mb` are what the smallest of its kind has."""

    name: str
    title: str
    architecture: Architecture
    system: System = "any"
    board: str = ""
    cpu: str = "any"
    isa: tuple[str, ...] = ()
    cores: int | None = Field(None, ge=1)
    memory_mb: int | None = Field(None, ge=1)
    verified: str = Field("not run", pattern=r"^(native \d{4}-\d\d-\d\d|parity (emulated|simulated) \d{4}-\d\d-\d\d|not run)$")
    runtime: Runtime = Runtime()
    session: Session = Session()
    quantization: Quantization
    budget: Budget = Budget()
    emulator: Emulator | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Target:
        if found := list(contradictions(self)):
            raise ValueError("\n".join(found))
        return self

    def schemes(self, family: Family) -> tuple[str, ...]:
        """Those of the profile; none for encoder-decoder models, whatever it inherits, where their two graphs do not run."""
        plain = self.runtime.provider == CPU and self.runtime.shapes == "dynamic" and self.runtime.ids == "int64"
        if family == "seq2seq" and not (plain and self.architecture != "wasm32"):
            return ()
        schemes: tuple[str, ...] = getattr(self.quantization, family)
        return schemes


def contradictions(target: Target) -> Iterator[str]:
    """Everything in the profile that cannot be true together, one line each."""
    yield from _hardware(target)
    yield from _runtime(target)
    if not any(map(target.schemes, FAMILIES)):
        yield f"quantization: no scheme for any of {', '.join(FAMILIES)}, so nothing can be exported"
    if target.cores and target.session.threads > target.cores:
        yield f"session.threads = {target.session.threads}, but there are {target.cores} cores"
    if target.memory_mb and target.budget.memory_mb and target.budget.memory_mb > target.memory_mb:
        yield f"budget.memory_mb = {target.budget.memory_mb:g}, but the device has {target.memory_mb} MB"


def _hardware(target: Target) -> Iterator[str]:
    isa, own = set(target.isa), set(ISA[target.architecture])
    every = {name for names in ISA.values() for name in names}
    if wrong := sorted((isa & every) - own):
        yield f"isa {', '.join(wrong)} does not exist on architecture {target.architecture}"
    for name in sorted(isa - every):
        yield f"isa {name} is unknown{did_you_mean(name, own)}"
    x86 = target.architecture == "x86_64"
    vnni = sorted(VNNI & isa)
    saturates = target.quantization.saturates
    if saturates and vnni:
        yield f"quantization.saturates = true contradicts isa {', '.join(vnni)}, which does not saturate"
    if saturates and not x86:
        yield f"quantization.saturates = true, but 8-bit sums do not saturate on architecture {target.architecture}"
    if x86 and not vnni and not saturates and target.runtime.provider == CPU:
        yield "quantization.saturates = false, but an x86-64 CPU without VNNI in its isa saturates"
    if target.emulator and target.emulator.qemu != target.architecture:
        yield f"emulator.qemu = {target.emulator.qemu} contradicts architecture {target.architecture}"


def _runtime(target: Target) -> Iterator[str]:
    runtime = target.runtime
    provider = PROVIDERS.get(runtime.provider)
    if provider is None:
        yield f"runtime.provider {runtime.provider} is unknown{did_you_mean(runtime.provider, PROVIDERS)}"
    elif provider.systems and target.system not in ("any", *provider.systems):
        yield f"runtime.provider {runtime.provider} does not exist on system {target.system}"
    if runtime.shapes == "static" and runtime.sequence is None:
        yield "runtime.shapes = static needs runtime.sequence, the number of tokens that the graph takes"
    if runtime.shapes == "dynamic" and runtime.sequence is not None:
        yield f"runtime.sequence = {runtime.sequence} contradicts runtime.shapes = dynamic"
    if runtime.shapes == "dynamic" and provider and not provider.dynamic:
        yield f"runtime.shapes = dynamic, but {runtime.provider} takes static shapes only"
    if runtime.shapes == "static" and target.quantization.decoder:
        yield "runtime.shapes = static, but a decoder's cache grows: quantization.decoder must be empty"
    if runtime.provider == CPU and runtime.min_share:
        yield f"runtime.min_share is for accelerators; {CPU} takes every node"
    for what, value, since in (("opset", runtime.opset, OPSETS), ("ir", runtime.ir, IRS)):
        if version(runtime.onnxruntime_min) < version(since[value]):
            yield f"runtime.onnxruntime_min = {runtime.onnxruntime_min} cannot load {what} {value}: that takes {since[value]} or newer"


def version(text: str) -> tuple[int, ...]:
    """ "1.23" -> (1, 23), to compare."""
    return tuple(int(part) for part in text.split("."))
