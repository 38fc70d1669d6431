"""What a quick answer may not import. Modules are counted, not seconds: a busy machine changes only the latter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "onnx", "onnxruntime", "onnxscript", "optimum", "datasets", "accelerate", "sklearn", "scipy", "pandas", "matplotlib", "huggingface_hub")  # fmt: skip
PROGRAM = """
import json, sys
from edgetune.cli.app import call
code = call(sys.argv[1:])
print(json.dumps([code, sorted({name.split('.')[0] for name in sys.modules})]))
"""


def loaded(*arguments: str) -> tuple[int, set[str]]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True)
    code, names = json.loads(done.stdout.splitlines()[-1])
    return code, set(names)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("nonsense",)])
def test_the_first_answers_load_almost_nothing(arguments: tuple[str, ...]) -> None:
    code, names = loaded(*arguments)
    assert code == (2 if arguments == ("nonsense",) else 0)
    assert not names & {*HEAVY, "numpy", "psutil"}
    assert arguments != ("--help",) or "pydantic" not in names  # typer itself needs it to read values


@pytest.mark.parametrize(
    "arguments", [("adapt", "--help"), ("export", "--help"), ("run", "--help"), ("predict", "--help"), ("benchmark", "--help"), ("data", "check", "--help"), ("targets", "list", "--json"), ("methods",), ("tasks",)]
)  # fmt: skip
def test_help_and_tables_load_no_framework(arguments: tuple[str, ...]) -> None:
    code, names = loaded(*arguments)
    assert code == 0
    assert not names & set(HEAVY)


def test_importing_edgetune_loads_nothing_heavy() -> None:
    program = "import sys, edgetune; print(edgetune.__version__); print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {*HEAVY, "numpy", "pydantic", "typer", "rich"}


def test_public_names_resolve() -> None:
    import edgetune

    for name in edgetune.__all__:
        assert getattr(edgetune, name)
