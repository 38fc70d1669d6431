"""The float graph: traced, pinned to the target's opset and IR, and compared with PyTorch on a grid of shapes."""

from __future__ import annotations

import inspect
import io
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgetune import progress
from edgetune.errors import GateError, StageError
from edgetune.graph import Plan, Shape, narrow, session

TOLERANCE = 1e-4
LARGEST = 2 << 30  # protobuf's limit for one file


def export(plan: Plan, path: Path, opset: int, ir: int) -> dict[str, Any]:
    """Write `plan.module` to `path` with the first exporter whose graph equals PyTorch.

    Returns the exporter, its largest error, and why earlier ones were passed over. Raises GateError when no graph is equal,
    StageError when none could be traced.
    """
    refused: dict[str, str] = {}
    for name, exporter in EXPORTERS.items():
        try:
            exporter(plan, path, opset)
            _pin(path, plan, opset, ir)
        except (RuntimeError, ValueError, TypeError, KeyError, torch.onnx.OnnxExporterError) as error:
            why = str(error).strip() or type(error).__name__
            refused[name] = f"could not trace: {why.splitlines()[0][:200]}"
            progress.warn(f"exporter {name} {refused[name]}")
            continue
        narrowed = _narrow(path, plan)
        worst, shape = parity(plan, path)
        if worst <= TOLERANCE:
            facts = {"exporter": name, "opset": opset, "ir": ir, "max_error": worst, "shapes": len(plan.shapes), "refused": refused}
            return {**facts, "narrowed": narrowed}
        refused[name] = f"differs from PyTorch by {worst:.2g} at {shape}"
        progress.warn(f"exporter {name} {refused[name]}")
    kind = GateError if any("differs" in reason for reason in refused.values()) else StageError
    raise kind("no exporter gave a graph that equals PyTorch", details=[f"{name}: {reason}" for name, reason in refused.items()])


def _narrow(path: Path, plan: Plan) -> int:
    """Steps that now work on the first token only (see `narrow`); 0 where the graph has a cache, or nothing reads the first token."""
    if any(shape.past for shape in plan.shapes):
        return 0
    model = onnx.load(path)
    runs = [plan.feeds(Shape(batch, length), 0) for batch, length in ((2, 5), (3, 7))]
    count = narrow.narrow(model, narrow.observe(model, runs))
    if count:
        onnx.save(model, path)
    return count


def parity(plan: Plan, path: Path) -> tuple[float, str]:
    """The largest difference of any output from PyTorch over `plan.shapes`, relative to max(1, its largest value), and where it occurs.

    Relative, because rounding grows with the values: a decoder's logits of 30 differ by 1e-4 from float64 in PyTorch itself.
    """
    run = session.start(path)
    worst, where = 0.0, ""
    shapes = _taken(plan, run)
    with progress.bar("comparing the graph with PyTorch", len(shapes)) as bar:
        for seed, shape in enumerate(shapes):
            feeds = plan.feeds(shape, seed)
            with torch.no_grad():
                expected = plan.module(*(torch.from_numpy(feeds[name]) for name in plan.inputs))
            expected = expected if isinstance(expected, tuple) else (expected,)
            parts = [run.run(list(plan.outputs), part) for part in session.fitted(feeds, run)]
            found = [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
            mask = _real(feeds)
            for name, a, b in zip(plan.outputs, expected, found, strict=True):
                difference = np.abs(a.numpy() - b) / max(1.0, float(a.abs().max()) if a.numel() else 1.0)
                if mask is not None and session.of_tokens(name, difference):
                    difference = difference[mask]
                largest = float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
                worst, where = max((worst, where), (largest, f"{name} {shape}"))
            bar.advance(1)
    return worst, where


def _taken(plan: Plan, run: Any) -> list[Shape]:
    """The shapes of the grid that a graph takes; one of fixed shapes: those without a past that are not longer."""
    length = next(entry.shape[1] for entry in run.get_inputs() if entry.name == "input_ids")
    return [s for s in plan.shapes if not isinstance(length, int) or (s.past == 0 and s.sequence <= length)]


def _real(feeds: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Which positions of `input_ids` are real tokens, [b, s] bool: what padding computes is nobody's answer."""
    if "attention_mask" not in feeds:
        return None
    length = feeds["input_ids"].shape[1]
    return feeds["attention_mask"][:, -length:].astype(bool)


def _dynamo(plan: Plan, path: Path, opset: int) -> None:
    with _quiet():
        program = torch.onnx.export(
            plan.traced or plan.module,
            _example(plan),
            dynamo=True,
            input_names=list(plan.inputs),
            output_names=list(plan.outputs),
            dynamic_shapes=_dynamic(plan),
            opset_version=opset,
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)


def _torchscript(plan: Plan, path: Path, opset: int) -> None:
    with _quiet():
        torch.onnx.export(
            plan.traced or plan.module,
            _example(plan),
            str(path),
            dynamo=False,
            input_names=list(plan.inputs),
            output_names=list(plan.outputs),
            dynamic_axes={name: dict(axes) for name, axes in plan.dynamic.items()},
            opset_version=min(opset, 20),
        )


# In order of preference: torch's current exporter, and the old tracer as the last resort.
EXPORTERS: dict[str, Callable[[Plan, Path, int], None]] = {"dynamo": _dynamo, "torchscript": _torchscript}


def _example(plan: Plan) -> tuple[torch.Tensor, ...]:
    feeds = plan.feeds(plan.trace_shape, 0)
    return tuple(torch.from_numpy(feeds[name]) for name in plan.inputs)


def _dynamic(plan: Plan) -> tuple[Any, ...]:
    """Symbolic dimensions as the parameters of `plan.module.forward` take them: those of `*past` in a tuple of their own.

    They are given by name, so that torch finds the relations between them itself.
    """
    shapes = [dict(plan.dynamic.get(name, {})) for name in plan.inputs]
    parameters = inspect.signature(plan.module.forward).parameters.values()
    plain = sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)
    return (*shapes[:plain], tuple(shapes[plain:])) if plain < len(parameters) else tuple(shapes)


def _pin(path: Path, plan: Plan, opset: int, ir: int) -> None:
    """Set the IR version, drop the exporter's notes, give the symbolic dimensions their names, and refuse what one file cannot hold.

    Raises ValueError when the graph is of another opset.
    """
    model = onnx.load(path)
    model.ir_version = ir
    found = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if found != opset:
        raise ValueError(f"it wrote opset {found}, the target asks for {opset}")
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, name in plan.dynamic.get(value.name, {}).items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    if model.ByteSize() >= LARGEST:
        raise StageError(
            f"the float graph is {model.ByteSize() / 1e9:.1f} GB: more than one ONNX file can hold (2 GB)",
            mend="choose a smaller base model",
        )
    temporary = path.with_name("pinned.onnx")
    onnx.save(model, temporary)
    os.replace(temporary, path)


class _quiet(warnings.catch_warnings):
    """The exporters talk a lot, on every channel."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        self._level = logging.getLogger("torch.onnx").level
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        self._outputs = [redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())]
        for output in self._outputs:
            output.__enter__()

    def __exit__(self, *reason: object) -> None:
        for output in reversed(self._outputs):
            output.__exit__(*reason)  # type: ignore[arg-type]
        logging.getLogger("torch.onnx").setLevel(self._level)
        super().__exit__(*reason)  # type: ignore[arg-type]
