from __future__ import annotations

from pathlib import Path

import pytest

from edgetune import target


def test_the_list_is_honest_about_what_ran_where(edgetune) -> None:
    rows = edgetune("targets", "list", "--json").json
    assert [row["name"] for row in rows] == list(target.names())
    for row in rows:
        assert set(row) == {"name", "title", "provider", "verified"}
        assert row["verified"] == target.load(row["name"]).verified
        assert row["verified"] == "not run" or row["verified"].split()[0] in ("native", "parity")
    shown = edgetune("targets", "list")
    assert all(row["verified"] in shown.out for row in rows)
    assert "no speed is known" in shown.err
    assert edgetune("targets", "list", "-q").out.split() == list(target.names())


def test_show_has_what_is_inherited(edgetune) -> None:
    found = edgetune("targets", "show", "x86_64-vnni", "--json").json
    assert found["runtime"]["opset"] == target.load("x86_64").runtime.opset
    shown = edgetune("targets", "show", "rpi5").out
    for line in ("runtime.provider", "session.spinning", "emulator.cpu", "quantization.float_ops", "board"):
        assert line in shown


def test_detect_is_one_of_them_and_bare_when_piped(edgetune) -> None:
    assert edgetune("targets", "detect").out.strip() in target.names()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('extends = "x86_64"\nisa = ["avx2", "avx512_vnni"]\n', "contradicts isa avx512_vnni"),
        ('extends = "arm64"\nisa = ["avx2"]\n', "does not exist on architecture aarch64"),
        ('extends = "arm64"\ncolour = "red"\n', "colour: unknown key"),
        ('extends = "arm46"\n', 'did you mean "arm64"?'),
        ("extends = \n", "not valid TOML"),
        ('extends = "arm64"\n[quantization]\nencoder = ["int8-dynamc"]\n', 'did you mean "int8-dynamic"?'),
    ],
)
def test_check_finds_what_is_wrong(edgetune, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    answer = edgetune("targets", "check", file)
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err.splitlines()) <= 20


def test_check_takes_what_is_right(edgetune, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('extends = "arm64"\ntitle = "My board"\n')
    answer = edgetune("targets", "check", file, "--json")
    assert answer.code == 0
    assert answer.json == {"name": "mine", "valid": True}
    assert f"--target {file}" in answer.err
