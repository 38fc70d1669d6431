"""The fold over the stages: prepare -> adapt -> merge -> export -> benchmark, each done only when it is missing or stale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgetune import methods, progress, source, tasks
from edgetune.artifact import Adapted, Artifact, Bundle, Dataset, Graph, Merged, file_digest, folder_digest
from edgetune.compress import WHOLE, Size
from edgetune.errors import RecipeError, RunError
from edgetune.methods import augmented, check, teachers
from edgetune.quant import profile
from edgetune.recipe import AUTO, ELSEWHERE, AugmentKeys, ContinualKeys, Recipe, changed, dump, load
from edgetune.report import refresh
from edgetune.target import Target
from edgetune.workspace import Workspace, existing, opened, write_json, write_text

STAGES = ("prepare", "adapt", "merge", "export", "benchmark")


def run(recipe: Recipe, until: str = "benchmark") -> Path:
    """Do every stage up to `until` in `recipe.output`; returns the run directory.

    Raises RequestError before anything is written when the recipe, the targets or the output cannot be used.
    """
    recipe = _continued(recipe)
    if not recipe.task and recipe.data.path:
        from edgetune.data import infer

        recipe = recipe.model_copy(update={"task": infer.task(recipe)})
    recipe = methods.ranked(_chosen(_started(recipe)))
    check.complete(recipe, until)
    wanted = STAGES[: STAGES.index(until) + 1]
    devices = _targets(recipe) if "export" in wanted else ()
    with opened(recipe) as workspace:
        dataset = _prepare(workspace, recipe)
        begun = _start(workspace, recipe)
        merged = None
        if recipe.method == AUTO:
            recipe = _choose(workspace, recipe, dataset, begun)
            check.complete(recipe, until)
        if recipe.method == ELSEWHERE:
            merged = _adopt(workspace, recipe, dataset)
            _other_tests(workspace, recipe, dataset, merged)
        elif "adapt" in wanted:
            adapted = _adapt(workspace, recipe, dataset, begun)
            if recipe.adapt.generated and hasattr(tasks.get(recipe.task).module, "asked"):
                _generate(workspace, recipe, dataset, adapted)
            plain = _source_only(workspace, recipe, dataset, begun, adapted) if recipe.domain.unlabelled else None
            _other_tests(workspace, recipe, dataset, adapted, plain)
            merged = _merge(workspace, recipe, dataset, adapted) if "merge" in wanted else None
        if merged and "export" in wanted:
            bundles = _export(workspace, recipe, devices, dataset, merged)
            if "benchmark" in wanted:
                _benchmark(workspace, devices, bundles)
    return workspace.path


def merge(path: Path) -> Path:
    """Adapt (when that is not done) and merge the run at `path`."""
    return run(_with(existing(path).recipe, {"output": str(path)}), "merge")


def export(path: Path, overrides: Mapping[str, Any]) -> Path:
    """Export a run, or a transformers or peft checkpoint trained elsewhere, with `overrides` (dotted recipe keys) over its recipe."""
    if (path / "recipe.toml").is_file():
        return run(_with(existing(path).recipe, {**overrides, "output": str(path)}), "export")
    if not path.is_dir():
        raise RunError(f"{path} is neither a run directory nor a checkpoint", mend="edgetune adapt --output RUN makes a run")
    return run(load(None, {"model": str(path), "method": ELSEWHERE, "output": f"{path.resolve().name}-edgetune", **overrides}), "export")


def _prepare(workspace: Workspace, recipe: Recipe) -> Dataset:
    from edgetune.data import digests
    from edgetune.stages.prepare import prepare

    key = {
        "task": recipe.task,
        "seed": recipe.seed,
        "data": recipe.data.model_dump(exclude={"licence", "other_tests", "descriptions"}),
        "files": digests(recipe.data),
    }
    key |= _earlier(recipe, "dataset", "replay")
    return _staged(workspace, "prepare", Dataset, "data", lambda out: prepare(recipe, out), key, [])


def _started(recipe: Recipe) -> Recipe:
    if not recipe.start:
        return recipe
    from edgetune.stages.start import complete

    if recipe.method == ELSEWHERE:
        raise RecipeError("start is for training, and this model was trained elsewhere", mend="leave start away")
    return complete(recipe)


def _start(workspace: Workspace, recipe: Recipe) -> list[Artifact]:
    """What training starts from, where that is another run's model."""
    if not recipe.start:
        return []
    from edgetune.stages.start import FOLDER, STAGE, origin, start

    key = {"merged": origin(recipe)["merged"], "task": recipe.task}
    return [_staged(workspace, STAGE, Artifact, FOLDER, lambda out: start(recipe, out), key, [])]


def _choose(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact]) -> Recipe:
    """The recipe with a method that fits; the run's says the same from here on."""
    from edgetune.stages.choose import choose

    key = {**recipe.model_dump(include={"model", "task"}, mode="json"), "adapt": changed(recipe.adapt), "files": _base(recipe)}
    _staged(workspace, AUTO, Artifact, AUTO, lambda out: choose(recipe, dataset, out), key, [dataset, *begun])
    recipe = methods.ranked(_chosen(recipe))
    write_text(workspace.path / "recipe.toml", dump(recipe))
    return recipe


def _chosen(recipe: Recipe) -> Recipe:
    """The recipe with the method that its run has chosen already; as it is when none was asked for, or none is chosen yet."""
    if recipe.method != AUTO or not (Path(recipe.output) / "recipe.toml").is_file():
        return recipe
    found = existing(Path(recipe.output)).manifest["stages"].get(AUTO)
    if not found:
        return recipe
    progress.note(f"method: {found['facts']['method']} (auto: {found['facts']['why']})")
    return recipe.model_copy(update={"method": found["facts"]["method"]})


def _adapt(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact], name: str = "adapt", folder: str = "") -> Adapted:
    from edgetune.stages.adapt import adapt

    made = _augment(workspace, recipe, dataset, begun)
    key = {
        **recipe.model_dump(include={"model", "task", "method", "seed"}, mode="json"),
        "adapt": changed(recipe.adapt, {"generated"}),
        "lora": changed(recipe.lora),
        **({"prompt": recipe.prompt.tokens} if methods.get(recipe.method).prompts else {}),
        **({"search": recipe.search.model_dump(mode="json")} if recipe.search.trials else {}),
        **({"augment": recipe.augment.model_dump(mode="json")} if recipe.augment != AugmentKeys() else {}),
        "files": _base(recipe),
        **_earlier(recipe, "merged", "ewc"),
        **({"descriptions": _digest(recipe.data.descriptions)} if recipe.data.descriptions else {}),
    }
    if recipe.method in methods.EPISODIC:
        key["meta"] = recipe.meta.model_dump(mode="json")
    if recipe.method == "distillation":
        key["distillation"] = recipe.distillation.model_dump(mode="json")
        key["teachers"] = [folder_digest(teacher.folder) for teacher in teachers.named(recipe)]
    if recipe.domain.unlabelled:
        key["domain"] = {**recipe.domain.model_dump(mode="json"), "texts": _digest(recipe.domain.unlabelled)}
    folder = folder or methods.get(recipe.method).folder
    return _staged(workspace, name, Adapted, folder, lambda out: adapt(recipe, dataset, out, *made), key, [dataset, *begun, *made])


def _base(recipe: Recipe) -> str:
    """The digest of a local base; of a run that starts from another one that is in what it kept."""
    return "" if recipe.start else source.digest(recipe.model)


def _augment(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact]) -> list[Artifact]:
    """The rows that are made to learn from, if any are. Self-training learns a first model before."""
    if not augmented.makes(recipe):
        return []
    from edgetune.stages.augment import augment

    first = augmented.first(recipe)
    teacher = _adapt(workspace, first, dataset, begun, "first", "first") if first else None
    key = {**recipe.augment.model_dump(mode="json", include=augmented.KEYS), "seed": recipe.seed, "task": recipe.task}
    key["texts"] = _digest(recipe.augment.unlabelled)
    parents = [dataset, *([teacher] if teacher else [])]
    return [_staged(workspace, "augment", Artifact, "augmented", lambda out: augment(recipe, dataset, teacher, out), key, parents)]


def _continued(recipe: Recipe) -> Recipe:
    if recipe.continual == ContinualKeys():
        return recipe
    if recipe.start and recipe.continual.run:
        raise RecipeError(
            "--from and --continue both say where training starts",
            mend="--continue goes on with one task, --from begins another; leave one away",
        )
    from edgetune.methods import continual

    return continual.complete(recipe)


def _earlier(recipe: Recipe, part: str, key: str) -> dict[str, Any]:
    """Of the run that is continued what a stage depends on; nothing without one, so that the keys of other runs stay as they were."""
    if not recipe.continual.run:
        return {}
    from edgetune.methods import continual

    return {"continual": {part: getattr(continual.learned(recipe), part).digest, key: getattr(recipe.continual, key)}}


def _generate(workspace: Workspace, recipe: Recipe, dataset: Dataset, adapted: Adapted) -> None:
    from edgetune.stages.generate import generate

    key = {"seed": recipe.seed, **recipe.adapt.model_dump(include={"generated", "baselines"})}
    _staged(workspace, "generated", Artifact, "generated", lambda out: generate(recipe, dataset, adapted, out), key, [dataset, adapted])


def _source_only(workspace: Workspace, recipe: Recipe, dataset: Dataset, begun: list[Artifact], adapted: Adapted) -> Adapted | None:
    """What the same training gives without target texts; where there are tests to compare the two on."""
    if not (recipe.data.other_tests and recipe.adapt.baselines):
        return None
    from edgetune.methods import domain

    progress.note(f"source-only, which {recipe.method} is compared with (adapt.baselines = false: without)")
    return _adapt(workspace, domain.alone(recipe, adapted.facts["settings"]), dataset, begun, "source_only", "source_only")


def _other_tests(workspace: Workspace, recipe: Recipe, dataset: Dataset, model: Artifact, plain: Adapted | None = None) -> None:
    if not recipe.data.other_tests:
        return
    from edgetune.data.other_tests import digests
    from edgetune.stages.other_tests import measure

    key = {"files": digests(recipe), "on_bad_row": recipe.data.on_bad_row}
    parents = [dataset, model, *([plain] if plain else [])]
    _staged(workspace, "other_tests", Artifact, "other_tests", lambda out: measure(recipe, dataset, model, plain, out), key, parents)


def _adopt(workspace: Workspace, recipe: Recipe, dataset: Dataset) -> Merged:
    from edgetune.stages.adopt import adopt

    key = {"model": recipe.model, "files": source.digest(recipe.model)}
    return _staged(workspace, "merge", Merged, "merged", lambda out: adopt(recipe, dataset, out), key, [dataset])


def _merge(workspace: Workspace, recipe: Recipe, dataset: Dataset, adapted: Adapted) -> Merged:
    from edgetune.stages.merge import merge

    return _staged(workspace, "merge", Merged, "merged", lambda out: merge(recipe, dataset, adapted, out), {}, [dataset, adapted])


def _export(workspace: Workspace, recipe: Recipe, devices: tuple[Target, ...], dataset: Dataset, merged: Merged) -> list[Bundle]:
    from edgetune.fit.candidates import forget
    from edgetune.fit.choice import Form
    from edgetune.stages.export import bundle

    forms = _forms(workspace, recipe, devices, dataset, merged)
    candidates = workspace.path / ".work" / "candidates" / dataset.digest[:16]
    bundles = []
    for device in devices:
        traced = [Form(name, model, _graph(workspace, recipe, device, name, model)) for name, model in forms.items()]

        def write(out: Path, device: Target = device, traced: list[Form] = traced) -> Mapping[str, Any]:
            return bundle(recipe, device, dataset, traced, candidates, out)

        export = recipe.export.model_dump(mode="json", exclude={"targets"})
        key = {"export": export, "target": device.model_dump(mode="json"), "licence": recipe.data.licence}
        parents = [dataset, *(part for form in traced for part in (form.model, form.graph))]
        bundles.append(_staged(workspace, f"export:{device.name}", Bundle, f"bundles/{device.name}", write, key, parents))
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

    made: Graph = _staged(workspace, f"graph:{place}", Graph, f"graph/{place}", trace, key, [model])
    if runtime.ids == "int64" and runtime.shapes == "dynamic":
        return made
    sequence = longest(device, model) if runtime.shapes == "static" else None
    place += f"-{runtime.ids}" + (f"-1x{sequence}" if sequence else "")
    key |= {"ids": runtime.ids, "sequence": sequence}

    def change(out: Path) -> Mapping[str, Any]:
        return taken(recipe, model, made, runtime.ids, sequence, out)

    changed: Graph = _staged(workspace, f"graph:{place}", Graph, f"graph/{place}", change, key, [model, made])
    return changed


def _forms(workspace: Workspace, recipe: Recipe, devices: tuple[Target, ...], dataset: Dataset, merged: Merged) -> dict[str, Merged]:
    """The adapted model, and the smaller ones that the recipe asks for or the search may try, the largest first.

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
            "files": _digest(recipe.compress.unlabelled),
            "asks": list(merged.facts.get("asks", ["text"])),
        }
        taught = _staged(
            workspace, "teach", Artifact, "compressed/texts", lambda out: teach(recipe, dataset, merged, out), key, [dataset, merged]
        )
    for size in wanted:
        if size.name == WHOLE:
            continue

        def make(out: Path, size: Size = size) -> Mapping[str, Any]:
            return compress(recipe, dataset, merged, taught, size, out)

        how = recipe.compress.model_dump(include={"epochs", "learning_rate", "temperature"}) if size.learns else {}
        parents = [dataset, merged, *([taught] if taught and size.learns else [])]
        key = {"size": asdict(size), "seed": recipe.seed, **how}
        forms[size.name] = _staged(workspace, f"compress:{size.name}", Merged, f"compressed/{size.name}", make, key, parents)
        left = wanted[wanted.index(size) + 1 :]
        if recipe.export.fit and left and hopeless(forms[size.name].facts, most):
            lost = forms[size.name].facts["lost"]
            progress.note(f"{size.name} lost {lost:.3f} of {most:g} allowed: {', '.join(one.name for one in left)} not tried")
            break
    return forms


def _digest(place: str) -> str:
    """Of a file or folder of the user's; empty when there is none."""
    path = Path(place).expanduser() if place else None
    if path is None or not path.exists():
        return ""
    return folder_digest(path) if path.is_dir() else file_digest(path)


def _benchmark(workspace: Workspace, devices: tuple[Target, ...], bundles: list[Bundle]) -> None:
    from edgetune.runtime import measurable
    from edgetune.stages.benchmark import benchmark

    absent = {device.name: device.runtime.provider for device in devices if not measurable(device.runtime.provider)}
    for name, provider in absent.items():
        progress.warn(f"{name} is not measured: this machine has no {provider}")
    bundles = [bundle for bundle in bundles if bundle.path.name not in absent]
    if not bundles:
        return

    def measure(out: Path) -> Mapping[str, Any]:
        rows = workspace.path / "data" / "test.jsonl"
        found = benchmark([bundle.path for bundle in bundles], rows=rows, generated=workspace.recipe.adapt.generated)
        write_json(out / "benchmark.json", found)
        return found

    _staged(workspace, "benchmark", Artifact, "benchmark", measure, {}, bundles)


def _staged(workspace: Workspace, name: str, kind: Any, folder: str, make: Any, key: Mapping[str, Any], parents: Any) -> Any:
    """One stage, and the report brought up to date with it."""
    done = workspace.stage(name, kind, folder, make, key=key, parents=parents)
    refresh(workspace)
    return done


def _targets(recipe: Recipe) -> tuple[Target, ...]:
    task = tasks.get(recipe.task)
    found = tuple(profile.load(name) for name in recipe.export.targets)
    for device in found:
        if not device.schemes(task.family):
            raise RecipeError(
                f"target {device.name} does not run {task.name}", mend=f"edgetune targets show {device.name} says what it runs"
            )
    names = [device.name for device in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RecipeError(f"target {', '.join(sorted(twice))} is given twice")
    return found


def _with(recipe: Recipe, overrides: Mapping[str, Any]) -> Recipe:
    """The run's recipe with other keys."""
    tree = recipe.model_dump(mode="json")
    flat = {f"{name}.{key}": item for name, value in tree.items() if isinstance(value, dict) for key, item in value.items()}
    flat |= {name: value for name, value in tree.items() if not isinstance(value, dict)}
    return load(None, flat | dict(overrides))
