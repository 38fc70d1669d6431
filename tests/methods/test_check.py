"""What is refused or told before anything is written."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from edgetune import progress
from edgetune.errors import RequestError
from edgetune.methods import METHODS, check
from edgetune.recipe import keys, load


@pytest.mark.parametrize(
    ("method", "given", "told"),
    [
        ("linear-probe", {"adapt.epochs": 3}, ["adapt.epochs = 3 has no effect: method linear-probe does not read it"]),
        ("zero-shot", {"adapt.learning_rate": 0.1}, ["adapt.learning_rate = 0.1 has no effect: method zero-shot does not read it"]),
        ("maml", {"adapt.accumulation": 2}, ["adapt.accumulation = 2 has no effect: method maml does not read it"]),
        ("full", {"adapt.epochs": 3, "adapt.accumulation": 2}, []),
        ("linear-probe", {"adapt.max_length": 32}, []),
        ("full", {"lora.rank": 8}, ["lora.rank = 8 has no effect: method full does not read it"]),
        ("dora", {"lora.rank": 8, "meta.shots": 3}, ["meta.shots = 3 has no effect: method dora does not read it"]),
        ("prompt-tuning", {"prompt.tokens": 3}, []),
    ],
)
def test_keys_without_effect_are_told(tmp_path: Path, method: str, given: dict[str, object], told: list[str]) -> None:
    plain = {"model": str(tmp_path), "data.path": str(tmp_path), "output": str(tmp_path / "run"), "task": "text-classification"}
    with progress.collecting() as notes, suppress(RequestError):  # an empty folder is no base
        check.complete(load(None, {**plain, "method": method, **given}), "adapt")
    assert [note.removeprefix("warning: ") for note in notes if "no effect" in note] == told


def test_unused_keys_are_keys() -> None:
    assert {key for method in METHODS.values() for key in method.unused} <= keys().keys()
    assert {section for method in METHODS.values() for section in method.sections} <= {key.partition(".")[0] for key in keys()}
