"""A target's schemes against the table of schemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune import target
from edgetune.errors import TargetError
from edgetune.quant import profile


def written(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('encoder = ["int8-dynamc", "fp32"]', 'quantization.encoder: int8-dynamc is unknown (did you mean "int8-dynamic"?)'),
        ('decoder = ["int8-dynamic", "fp32"]', "quantization.decoder: int8-dynamic is not for decoders"),
    ],
)
def test_a_scheme_that_does_not_fit_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(TargetError, match="is not a valid target") as raised:
        profile.load(written(tmp_path, f'extends = "arm64"\n[quantization]\n{text}\n'))
    assert raised.value.details == (said,)


def test_a_runtime_that_is_too_old_for_a_scheme_is_told(tmp_path: Path) -> None:
    name = written(
        tmp_path,
        'extends = "arm64"\n[runtime]\nonnxruntime_min = "1.20"\n[quantization]\nencoder = ["fp32"]\ndecoder = ["int4-block32", "fp32"]\n',
    )
    with pytest.raises(TargetError) as raised:
        profile.load(name)
    assert raised.value.details == ("quantization.decoder: int4-block32 needs onnxruntime 1.23, and runtime.onnxruntime_min is 1.20",)


def test_schemes_and_contradictions_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(TargetError) as raised:
        profile.load(written(tmp_path, 'extends = "rpi5"\ncores = 2\n[quantization]\nencoder = ["int8"]\n'))
    assert raised.value.details[0] == "session.threads = 4, but there are 2 cores"
    assert raised.value.details[1].startswith("quantization.encoder: int8 is unknown")


@pytest.mark.parametrize(
    "text", ["quantization = 3\n", "runtime = 3\n", "[quantization]\nencoder = 3\n", '[runtime]\nonnxruntime_min = "new"\n']
)
def test_what_has_another_shape_is_told_as_such(tmp_path: Path, text: str) -> None:
    with pytest.raises(TargetError, match="is not a valid target"):
        profile.load(written(tmp_path, f'extends = "arm64"\n{text}'))


@pytest.mark.parametrize("name", target.names())
def test_a_shipped_profile_is_as_core_loads_it(name: str) -> None:
    assert profile.load(name) == target.load(name)
