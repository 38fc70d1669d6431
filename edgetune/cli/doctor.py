"""`edgetune doctor`: what this machine can do, what is missing, how to get it."""

from __future__ import annotations

import platform
import shutil
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import typer

GPU_MEND = "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"
CPU_TORCH = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cpu"
NOT_RUN = "the CUDA paths (training on a GPU, CUDAExecutionProvider) have not been run on real hardware by edgetune's own tests"
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "optimum",
    "accelerate",
    "datasets",
    "tokenizers",
    "numpy",
)
LITTLE_DISK = 5e9  # bytes: a run of a 135 M decoder writes about 3 GB
NF4_ERROR = 0.2  # relative error of a 4-bit round trip on Gaussian weights is about 0.09


@dataclass(frozen=True)
class Finding:
    """Something to know (note) or to mend (error)."""

    level: Literal["note", "error"]
    what: str
    mend: str = ""


def doctor() -> None:
    """Exit 2 when something is broken; notes are only worth knowing."""
    from edgetune.cli.output import facts, out, table

    found, findings = examine()
    data = {**found, "findings": [asdict(finding) for finding in findings], "not_run": NOT_RUN, "ok": not _errors(findings)}
    shown = [facts(_lines(found[part]), part) for part in ("machine", "gpu", "torch", "onnxruntime", "bitsandbytes", "packages", "extras")]
    advice = [(f.level, f.what, f.mend or "-") for f in findings]
    out.result(
        data,
        *shown,
        *([table(advice, "", "found", "mend")] if advice else ["nothing is missing"]),
        f"not run: {NOT_RUN}",
        quiet=[f"{f.level}: {f.what}" for f in findings],
    )
    if _errors(findings):
        raise typer.Exit(2)


def examine() -> tuple[dict[str, Any], list[Finding]]:
    """What is here, in parts, and what is worth saying about it."""
    from edgetune import __version__

    findings: list[Finding] = []
    found = {
        "edgetune": __version__,
        "python": platform.python_version(),
        "machine": machine(findings),
        **torch_and_gpu(findings),
        "onnxruntime": runtimes(findings),
        "bitsandbytes": four_bits(findings),
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
        "extras": extras(findings),
    }
    return found, findings


def machine(findings: list[Finding]) -> dict[str, Any]:
    import psutil

    from edgetune import target
    from edgetune.errors import TargetError
    from edgetune.runtime.machine import fingerprint

    try:
        name = target.detect()
    except TargetError as error:
        name = None
        findings.append(
            Finding("note", f"no shipped target stands for this machine: {error}", "edgetune targets show x86_64 shows what one looks like")
        )
    free = shutil.disk_usage(Path.cwd()).free
    if free < LITTLE_DISK:
        findings.append(
            Finding("note", f"{free / 1e9:.1f} GB are free here; a run may need more", "free some space, or use another --output")
        )
    here = fingerprint()
    kept = ("cpu", "architecture", "isa", "cores", "memory_bytes", "os")
    return {
        **{key: here[key] for key in kept},
        "target": name,
        "available_bytes": psutil.virtual_memory().available,
        "disk_free_bytes": free,
    }


def torch_and_gpu(findings: list[Finding]) -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:
        findings.append(Finding("error", f"torch cannot be loaded: {_first_line(error)}", CPU_TORCH))
        return {"gpu": None, "torch": None}
    built = torch.version.cuda or torch.version.hip
    build = {
        "version": torch.__version__,
        "build": f"CUDA {built}" if torch.version.cuda else f"ROCm {built}" if built else "CPU",
        "threads": torch.get_num_threads(),
    }
    if not torch.cuda.is_available():
        if built:
            findings.append(
                Finding(
                    "note",
                    f"this torch is built for {build['build']}, but no GPU can be used",
                    f"where there is no GPU, save 2 GB: {CPU_TORCH}",
                )
            )
        elif shutil.which("nvidia-smi"):
            findings.append(
                Finding(
                    "note",
                    "there is an NVIDIA driver, but this torch is built for the CPU",
                    "pip install --force-reinstall torch, with the index for your CUDA (https://pytorch.org)",
                )
            )
        return {"gpu": None, "torch": build}
    about = torch.cuda.get_device_properties(0)
    findings.append(Finding("note", NOT_RUN))
    return {
        "gpu": {
            "name": about.name,
            "memory_bytes": about.total_memory,
            "bf16": torch.cuda.is_bf16_supported(),
            "count": torch.cuda.device_count(),
        },
        "torch": build,
    }


def runtimes(findings: list[Finding]) -> dict[str, Any] | None:
    """onnxruntime's builds unpack into one folder: two of them at once leave a mixture of both."""
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if installed(name)]
    if len(builds) > 1:
        findings.append(Finding("error", "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other", GPU_MEND))
    try:
        import onnxruntime
    except (ImportError, OSError) as error:
        findings.append(
            Finding("error", f"onnxruntime cannot be loaded: {_first_line(error)}", "pip install --force-reinstall onnxruntime")
        )
        return None
    return {"version": onnxruntime.__version__, "builds": builds, "providers": onnxruntime.get_available_providers()}


def four_bits(findings: list[Finding]) -> dict[str, Any]:
    """Quantises a small matrix to NF4 and back: what `--method qlora` needs."""
    mend = "pip install --upgrade bitsandbytes; without it, use --method lora"
    try:
        import torch
        from bitsandbytes import functional

        weights = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
        packed, state = functional.quantize_4bit(weights, quant_type="nf4")
        back = functional.dequantize_4bit(packed, state)
    except (ImportError, OSError, RuntimeError, AttributeError, NotImplementedError) as error:
        findings.append(Finding("error", f"bitsandbytes does not work: {_first_line(error)}", mend))
        return {"works": False}
    lost = float((back - weights).norm() / weights.norm())
    if not lost < NF4_ERROR:
        findings.append(Finding("error", f"bitsandbytes loses {lost:.0%} of a matrix in 4 bits (at most {NF4_ERROR:.0%} is right)", mend))
    return {"version": installed("bitsandbytes"), "works": lost < NF4_ERROR, "nf4_relative_error": round(lost, 4)}


def extras(findings: list[Finding]) -> dict[str, Any]:
    """The extras of edgetune, and the packages that each still lacks. Core packages that are missing are errors."""
    from packaging.requirements import Requirement

    try:
        needs = [Requirement(text) for text in metadata.requires("edgetune") or ()]
        names = metadata.metadata("edgetune").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        findings.append(Finding("note", "edgetune runs from a folder, it is not installed", "pip install ."))
        return {}
    core = [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    for need in core:
        version = installed(need.name) or (installed("onnxruntime-gpu") if need.name == "onnxruntime" else None)
        if version is None:
            findings.append(Finding("error", f"{need.name} is not installed", f'pip install "{need.name}{need.specifier}"'))
        elif not need.specifier.contains(version, prereleases=True):
            findings.append(
                Finding(
                    "error",
                    f"{need.name} {version} is installed; edgetune needs {need.specifier}",
                    f'pip install "{need.name}{need.specifier}"',
                )
            )
    found = {}
    for name in names:
        wanted = [need for need in needs if need not in core and need.marker is not None and need.marker.evaluate({"extra": name})]
        missing = [need.name for need in wanted if installed(need.name) is None]
        found[name] = {"complete": not missing, "missing": missing, **({"install": f'pip install "edgetune[{name}]"'} if missing else {})}
    return found


def installed(name: str) -> str | None:
    """The version of the distribution `name`, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "error"]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _lines(part: Any) -> dict[str, Any]:
    from edgetune.cli.output import size

    if not part:
        return {"": "none"}
    shown = {}
    for name, value in part.items():
        if name.endswith("_bytes"):
            name, value = name.removesuffix("_bytes"), size(value)
        elif isinstance(value, dict):
            value = "complete" if value.get("complete") else f"missing {', '.join(value['missing'])}: {value['install']}"
        elif isinstance(value, list):
            value = " ".join(map(str, value)) or "none"
        shown[name.replace("_", " ")] = value
    return shown
