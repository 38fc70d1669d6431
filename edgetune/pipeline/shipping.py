"""The stages from the merged model to bundles and what they cost: sizes, graphs, targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetune import progress, tasks
from edgetune.artifact import Artifact, Bundle, Dataset, Graph, Merged, folder_digest
from edgetune.compress import WHOLE, Size
from edgetune.methods import teachers
from edgetune.pipeline import ensemble
from edgetune.pipeline.staged import digest, staged
from edgetune.recipe import Recipe
from edgetune.target import Target
from edgetune.workspace import Workspace, write_json


def export(
    workspace: Workspace, recipe: Recipe, devices: tuple[Target, ...], dataset: Dataset, merged: Merged, begun: list[Artifact]
) -> list[Bundle]:
    """A bundle a device; candidates of models that are gone are removed. `begun`: what training started from."""
    from edgetune.fit.candidates import forget
    from edgetune.fit.choice import Form
    from edgetune.stages.export import bundle

    forms = _forms(workspace, recipe, devices, dataset, merged, begun)
    candidates = workspace.path / ".work" / "candidates" / dataset.digest[:16]
    bundles = []
    for device in devices:
        traced = [Form(name, model, _graph(workspace, recipe, device, name, model)) for name, model in forms.items()]

        def write(out: Path, device: Target = device, traced: list[Form] = traced) -> Mapping[str, Any]:
            return bundle(recipe, device, dataset, traced, candidates, out)

        export = recipe.export.model_dump(mode="json", exclude={"targets"})
        key = {"export": export, "target": device.model_dump(mode="json"), "licence": recipe.data.licence}
        parents = [dataset, *(part for form in traced for part in (form.model, form.graph))]
        bundles.append(staged(workspace, f"export:{device.name}", Bundle, f"bundles/{device.name}", write, key, parents))
    forget(candidates, sorted((workspace.path / "graph").rglob("model.onnx")))
    return bundles


def _graph(workspace: Workspace, recipe: Recipe, device: Target, form: str, model: Merged) -> Graph:
    """The float graph of `model` as `device` takes it: traced once for an opset and IR, and changed once for each kind of inputs."""
    from edgetune.fit.choice import longest
    from edgetune.stages.export import graph, taken

    runtime = device.runtime
    place = f"opset{runtime.opset}-ir{runtime.ir}" + ("" if form == WHOLE else f"-{form}")
    key: dict[str, Any] = {"opset": runtime.opset, "ir": runtime.ir}

    def trace(out: Path) -> Mapping[str, Any]:
        return graph(recipe, model, runtime.opset, runtime.ir, out)

    made: Graph = staged(workspace, f"graph:{place}", Graph, f"graph/{place}", trace, key, [model])
    if runtime.ids == "int64" and runtime.shapes == "dynamic":
        return made
    sequence = longest(device, model) if runtime.shapes == "static" else None
    place += f"-{runtime.ids}" + (f"-1x{sequence}" if sequence else "")
    key |= {"ids": runtime.ids, "sequence": sequence}

    def change(out: Path) -> Mapping[str, Any]:
        return taken(recipe, model, made, runtime.ids, sequence, out)

    changed: Graph = staged(workspace, f"graph:{place}", Graph, f"graph/{place}", change, key, [model, made])
    return changed


def _forms(
    workspace: Workspace, recipe: Recipe, devices: tuple[Target, ...], dataset: Dataset, merged: Merged, begun: list[Artifact]
) -> dict[str, Merged]:
    """The adapted model, and the smaller ones that the recipe asks for or the search may try, the largest first; each begins as the one before.

    The search stops at one that lost far more than any of `devices` allows.
    """
    from edgetune.fit.choice import allowed
    from edgetune.stages.compress import compress, hopeless, sizes, teach

    wanted = sizes(recipe, merged)
    most = max(allowed(recipe, device, tasks.get(recipe.task)) for device in devices)
    forms = {WHOLE: merged}
    taught = None
    if any(size.learns for size in wanted):
        key = {
            **recipe.compress.model_dump(include={"copies", "unlabelled"}),
            "seed": recipe.seed,
            "files": digest(recipe.compress.unlabelled),
            "asks": list(merged.facts.get("asks", ["text"])),
            **({"teachers": [folder_digest(one.folder) for one in named]} if (named := teachers.named(recipe, "compress")) else {}),
        }
        models = [merged, *ensemble.others(workspace, recipe, dataset, begun)]
        taught = staged(
            workspace, "teach", Artifact, "compressed/texts", lambda out: teach(recipe, dataset, models, out), key, [dataset, *models]
        )
    start = merged
    for size in wanted:
        if size.name == WHOLE:
            continue

        def make(out: Path, start: Merged = start, size: Size = size) -> Mapping[str, Any]:
            return compress(recipe, dataset, start, taught, size, out)

        how = recipe.compress.model_dump(include={"epochs", "learning_rate", "temperature"}) if size.learns else {}
        parents = [dataset, start, *([taught] if taught and size.learns else [])]
        key = {"size": asdict(size), "seed": recipe.seed, **how}
        forms[size.name] = start = staged(workspace, f"compress:{size.name}", Merged, f"compressed/{size.name}", make, key, parents)
        left = wanted[wanted.index(size) + 1 :]
        if recipe.export.fit and left and hopeless(forms[size.name].facts, most):
            lost = forms[size.name].facts["lost"]
            progress.note(f"{size.name} lost {lost:.3f} of {most:g} allowed: {', '.join(one.name for one in left)} not tried")
            break
    return forms


def benchmark(workspace: Workspace, devices: tuple[Target, ...], bundles: list[Bundle]) -> None:
    """What the bundles cost on this machine; those that it cannot run are said."""
    from edgetune.runtime import measurable
    from edgetune.stages import benchmark as stage

    absent = {device.name: device.runtime.provider for device in devices if not measurable(device.runtime.provider)}
    for name, provider in absent.items():
        progress.warn(f"{name} is not measured: this machine has no {provider}")
    bundles = [bundle for bundle in bundles if bundle.path.name not in absent]
    if not bundles:
        return

    def measure(out: Path) -> Mapping[str, Any]:
        rows = workspace.path / "data" / "test.jsonl"
        found = stage.benchmark([bundle.path for bundle in bundles], rows=rows, generated=workspace.recipe.adapt.generated)
        write_json(out / "benchmark.json", found)
        return found

    staged(workspace, "benchmark", Artifact, "benchmark", measure, {}, bundles)
