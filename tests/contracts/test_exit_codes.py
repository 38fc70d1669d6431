"""The error tree, its drawing, and the exit codes that scripts rely on."""

from __future__ import annotations

import inspect
import re

from edgetune import errors

CODES = {
    "EdgetuneError": 3,
    "RequestError": 2,
    "RecipeError": 2,
    "DataError": 2,
    "ModelError": 2,
    "TargetError": 2,
    "RunError": 2,
    "MissingExtra": 2,
    "StageError": 3,
    "GateError": 4,
    "Interrupted": 130,
}


def test_every_error_has_its_code() -> None:
    found = {name: kind.exit_code for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.EdgetuneError)}
    assert found == CODES


def test_the_drawing_is_the_tree() -> None:
    drawn = re.findall(r"^\W*([A-Z]\w+)\s+(?:exit (\d+)|\w)", errors.__doc__ or "", re.MULTILINE)
    assert [name for name, _ in drawn if name in CODES] == list(CODES)
    assert all(int(code) == CODES[name] for name, code in drawn if code and name in CODES)


def test_an_error_carries_what_details_and_mend() -> None:
    error = errors.DataError("3 rows have no label", details=["row 17"], mend="fix them")
    assert (str(error), error.details, error.mend) == ("3 rows have no label", ("row 17",), "fix them")


def test_did_you_mean() -> None:
    assert errors.did_you_mean("arm65", ["arm64", "x86_64"]) == ' (did you mean "arm64"?)'
    assert errors.did_you_mean("zebra", ["arm64", "x86_64"]) == ""
