"""Is this bundle what edgetune wrote, and does it compute here what it computed there?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from edgetune import target
from edgetune.artifact import file_digest
from edgetune.errors import GateError, RequestError
from edgetune.runtime import runners

if TYPE_CHECKING:
    from onnx import ModelProto

COMPILED = re.compile(r"(.*)__pycache__/(\w+)\.[\w-]+\.pyc")  # what Python leaves behind when an app imports run.py
SHOWN = 10  # details of one kind


def verify(bundle: Path, on: str = runners.LOCAL, provider: str | None = None, **options: Any) -> dict[str, Any]:
    """Check every file's sha256, the graph against the target, and the golden vectors in a process of their own.

    The golden vectors are computed by the runner `on` (see `runners.RUNNERS`, which take `options`), with `provider` in place of the
    bundle's own. Raises RequestError when
    `bundle` is no bundle, names files outside itself or cannot be run there, GateError when a check fails.
    """
    facts = facts_of(bundle)
    _same_files(bundle, facts["sha256"])
    graph, *_ = [_graph(bundle, facts, name) for name in graphs(facts)]
    with runners.opened(on, **options) as host:
        golden, where = _golden(bundle, host, provider)
    return {
        "schema": "edgetune.verify/1",
        "bundle": str(bundle),
        "target": facts["target"],
        "scheme": facts["scheme"],
        "files": len(facts["sha256"]) + 1,
        **graph,
        "on": where,
        "golden": golden,
        "passed": True,
    }


def facts_of(bundle: Path) -> dict[str, Any]:
    """edgetune.json of `bundle`. Raises RequestError when there is none, or when it names a file outside of the folder."""
    from edgetune.runtime.worker import BundleError, read_facts

    try:
        facts = read_facts(bundle)
    except BundleError as error:
        raise RequestError(str(error), mend="edgetune export writes a bundle") from None
    named = [*graphs(facts), *facts["sha256"], *([facts["compiled"]["model"]] if facts["compiled"] else [])]
    outside = [name for name in named for kind in (PurePosixPath, PureWindowsPath) if kind(name).anchor or ".." in kind(name).parts]
    if outside:
        raise RequestError(f"{bundle}/edgetune.json names files outside of the folder", details=list(dict.fromkeys(outside))[:SHOWN])
    return facts


def graphs(facts: Mapping[str, Any]) -> list[str]:
    """The names of a bundle's graphs: the model or, of an encoder-decoder model, the encoder, and the decoder."""
    return [facts["model"], *([facts["decoder"]] if facts.get("decoder") else [])]


def _same_files(bundle: Path, digests: dict[str, str]) -> None:
    there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()} - {"edgetune.json"}
    there = {name for name in there if not ((made := COMPILED.fullmatch(name)) and f"{made[1]}{made[2]}.py" in digests)}
    problems = {
        "missing": sorted(digests.keys() - there),
        "not in edgetune.json": sorted(there - digests.keys()),
        "changed": sorted(name for name in there & digests.keys() if file_digest(bundle / name) != digests[name]),
    }
    details = [f"{problem}: {name}" for problem, found in problems.items() for name in found]
    if details:
        raise GateError(
            f"{bundle} is not as it was written: {len(details)} file{'s' if len(details) > 1 else ''} differ",
            details=details[:SHOWN],
            mend="copy the bundle again, or export it again",
        )


def _graph(bundle: Path, facts: dict[str, Any], name: str) -> dict[str, Any]:
    import onnx
    from google.protobuf.message import DecodeError

    path = bundle / name
    try:
        model = onnx.load(path, load_external_data=False)
        if outside := external(model):
            details = [f"{name} is kept in another file" for name in outside[:SHOWN]]
            raise GateError(f"{path} does not hold all of its weights", details=details, mend="export it again")
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, DecodeError) as error:
        raise GateError(f"{path} is not a valid ONNX graph", details=str(error).strip().splitlines()[:SHOWN]) from None
    opset, ir = opset_of(model), model.ir_version
    problems = [f"{what} {here}, edgetune.json says {facts[what]}" for what, here in (("opset", opset), ("ir", ir)) if here != facts[what]]
    if facts["target"] in target.names():
        most = target.load(facts["target"]).runtime
        problems += [f"opset {opset}, {facts['target']} takes {most.opset}"] * (opset > most.opset)
        problems += [f"IR {ir}, {facts['target']} takes {most.ir}"] * (ir > most.ir)
    if problems:
        raise GateError(f"{path} does not fit its target", details=problems, mend="export it again")
    return {"opset": opset, "ir": ir}


def opset_of(model: ModelProto) -> int:
    """The version of the standard operators that `model` is written in."""
    return max((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), default=0)


def external(model: ModelProto) -> list[str]:
    """Names of the weights of `model` that lie in other files."""
    from onnx.external_data_helper import uses_external_data

    return [tensor.name for tensor in model.graph.initializer if uses_external_data(tensor)]


def _golden(bundle: Path, host: runners.Host, provider: str | None) -> tuple[dict[str, Any], str]:
    """(what run.py found, where it ran)."""
    done = host.run(bundle, ["--golden", *(["--provider", provider] if provider else [])])
    where = done.where or host.title
    if done.found is None:
        kind, what = (RequestError, "cannot be run") if done.exit_code == 2 else (GateError, f"failed (exit {done.exit_code})")
        raise kind(f"run.py of {bundle} {what} on {where}", details=done.stderr.splitlines()[-SHOWN:], mend=host.mend)
    check_golden(done.found, f"{bundle} on {where}")
    return done.found, where


def check_golden(found: Mapping[str, Any], what: str) -> None:
    """Raises GateError when `found`, the JSON of `run.py --golden`, is not a success. `what` was run, and where."""
    if found.get("passed") is True:
        return
    failures = found.get("failures", [])
    placed = found.get("placement")
    if placed and placed["share"] < placed["least"]:
        left = [f"left to the CPU: {count} x {kind}" for kind, count in placed["left"].items()]
        raise GateError(
            f"{placed['provider']} takes {placed['taken']} of the {placed['nodes']} nodes of {what}; its target asks for {placed['least']:.0%}",
            details=left[:SHOWN],
            mend="choose a scheme or a target that this accelerator takes, or lower runtime.min_share in a profile of your own",
        )
    raise GateError(
        f"{len(failures)} of {found.get('rows')} golden vectors of {what} differ "
        f"(largest error {found.get('max_error')}, tolerance {found.get('tolerance')})",
        details=[", ".join(f"{key} {value}" for key, value in failure.items()) for failure in failures[:SHOWN]],
        mend="export it again on this kind of machine, or choose another scheme",
    )
