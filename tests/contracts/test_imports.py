"""Who may import whom: cli -> pipeline -> stages -> fit -> {compress, quant, bundle, report} -> {methods, graph, runtime} -> data -> tasks -> core."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "edgetune"
CORE = ("errors", "sections", "recipe", "profile", "target", "artifact", "workspace", "progress", "table", "source")
LAYERS = (
    ("cli",),
    ("pipeline",),
    ("stages",),
    ("fit",),
    ("compress", "quant", "bundle", "report"),
    ("methods", "graph", "runtime"),
    ("data",),
    ("tasks",),
    CORE,
)
RANK = {room: rank for rank, layer in enumerate(LAYERS) for room in layer}
ROOT_FILES = ("__init__", "__main__")  # the lazy public names, and the way in
REFERENCE = re.compile(r"(edgetune(?:\.\w+)+)(?::\w+)?")


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str, tables: bool = True) -> Iterator[str]:
    """The modules of edgetune that the module `name` imports, anywhere in its text, or names in a table (which it imports on use)."""
    tree = ast.parse(MODULES[name].read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "edgetune":
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            beside = name.startswith("edgetune.runtime.answers.") and node.level == 1  # modules of a bundle, which has no edgetune
            assert node.level == 0 or beside, f"{name}: relative import"
            if beside:
                yield f"edgetune.runtime.answers.{node.module}"
            elif node.module and node.module.split(".")[0] == "edgetune":
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in MODULES else node.module
        elif tables and isinstance(node, ast.Constant) and isinstance(node.value, str) and REFERENCE.fullmatch(node.value):
            target = node.value.partition(":")[0]
            if target in MODULES:
                yield target


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if path.parent != PACKAGE or path.stem not in ROOT_FILES])
def test_a_room_imports_only_rooms_to_its_right(name: str) -> None:
    here = room(name)
    assert here in RANK, f"{name} is in no room of the house"
    for other in imported(name):
        there = room(other)
        if there in ("", here):
            continue
        assert there in RANK, f"{name} imports {other}, which is in no room"
        both_core = here in CORE and there in CORE
        assert RANK[there] > RANK[here] or both_core, f"{name} imports {other}, which is not to its right"


def test_stages_do_not_import_each_other() -> None:
    stages = [name for name in MODULES if name.startswith("edgetune.stages.")]
    assert len(stages) >= 5
    for name in stages:
        others = [other for other in imported(name) if other.startswith("edgetune.stages.") and other != name]
        assert not others, f"{name} imports {others}"


def test_no_cycles() -> None:
    graph = {
        name: {other for other in imported(name, tables=False) if other not in (name, "edgetune")} for name in MODULES if name != "edgetune"
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path[path.index(name) :], name))}"
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            visit(other, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


ON_A_DEVICE = ("edgetune.runtime.worker", "edgetune.runtime.device", "edgetune.runtime.answers.")


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith(ON_A_DEVICE)])
def test_what_runs_on_a_device_imports_nothing_of_edgetune(name: str) -> None:
    assert all(other.startswith("edgetune.runtime.answers.") for other in imported(name))
