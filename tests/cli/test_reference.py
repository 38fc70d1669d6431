from __future__ import annotations

from pathlib import Path

import pytest

from edgetune import target
from edgetune.cli import app, reference
from edgetune.recipe import keys


def test_the_reference_in_the_repository_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().err


def test_drift_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "reference")
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "reference" / "recipe.md").write_text("old")
    capsys.readouterr()
    assert reference.main(["--check"]) == 1
    assert "recipe.md" in capsys.readouterr().err


def test_it_speaks_of_everything() -> None:
    pages = {name: "\n".join(make()) for name, make in reference.PAGES.items()}
    assert all(f"## edgetune {name}" in pages["commands.md"] for name in app.COMMANDS)
    assert all(f"`{key}`" in pages["recipe.md"] for key in keys())
    assert all(f"`{name}`" in pages["targets.md"] for name in target.names())
