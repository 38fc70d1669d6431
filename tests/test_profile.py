"""Contradictions: every one that a profile can hold is found, all of them at once, and no shipped profile holds one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune import target
from edgetune.errors import TargetError


def told(folder: Path, text: str) -> tuple[str, ...]:
    path = folder / "mine.toml"
    path.write_text(text)
    with pytest.raises(TargetError, match="is not a valid target") as raised:
        target.load(str(path))
    return raised.value.details


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            'extends = "x86_64"\nisa = ["avx2", "avx512_vnni"]\n',
            "quantization.saturates = true contradicts isa avx512_vnni, which does not saturate",
        ),
        (
            'extends = "x86_64-vnni"\nisa = ["avx2"]\n',
            "quantization.saturates = false, but an x86-64 CPU without VNNI in its isa saturates",
        ),
        (
            'extends = "arm64"\n[quantization]\nsaturates = true\n',
            "quantization.saturates = true, but 8-bit sums do not saturate on architecture aarch64",
        ),
        ('extends = "x86_64-vnni"\nisa = ["vnni", "neon"]\n', "isa neon does not exist on architecture x86_64"),
        ('extends = "arm64"\nisa = ["avx2"]\n', "isa avx2 does not exist on architecture aarch64"),
        ('extends = "arm64"\nisa = ["dotprd"]\n', 'isa dotprd is unknown (did you mean "dotprod"?)'),
        ('extends = "arm64"\n[emulator]\nqemu = "x86_64"\n', "emulator.qemu = x86_64 contradicts architecture aarch64"),
        (
            'extends = "arm64"\n[runtime]\nprovider = "CoreMLProvider"\n',
            'runtime.provider CoreMLProvider is unknown (did you mean "CoreMLExecutionProvider"?)',
        ),
        (
            'extends = "rpi5"\n[runtime]\nprovider = "CoreMLExecutionProvider"\n',
            "runtime.provider CoreMLExecutionProvider does not exist on system linux",
        ),
        ('extends = "ios-coreml"\n[runtime]\nshapes = "dynamic"\n', "runtime.sequence = 128 contradicts runtime.shapes = dynamic"),
        (
            'extends = "arm64"\n[runtime]\nshapes = "static"\n[quantization]\ndecoder = []\n',
            "runtime.shapes = static needs runtime.sequence, the number of tokens that the graph takes",
        ),
        (
            'extends = "arm64"\n[runtime]\nshapes = "static"\nsequence = 64\n',
            "runtime.shapes = static, but a decoder's cache grows: quantization.decoder must be empty",
        ),
        (
            'extends = "arm64"\n[runtime]\nprovider = "QNNExecutionProvider"\n',
            "runtime.shapes = dynamic, but QNNExecutionProvider takes static shapes only",
        ),
        ('extends = "arm64"\n[runtime]\nmin_share = 0.5\n', "runtime.min_share is for accelerators; CPUExecutionProvider takes every node"),
        (
            'extends = "arm64"\n[runtime]\nonnxruntime_min = "1.17"\n',
            "runtime.onnxruntime_min = 1.17 cannot load ir 10: that takes 1.18 or newer",
        ),
        (
            'extends = "arm64"\n[runtime]\nonnxruntime_min = "1.20"\nopset = 22\n',
            "runtime.onnxruntime_min = 1.20 cannot load opset 22: that takes 1.21 or newer",
        ),
        ('extends = "rpi5"\n[session]\nthreads = 8\n', "session.threads = 8, but there are 4 cores"),
        ('extends = "rpi4"\n[budget]\nmemory_mb = 2000\n', "budget.memory_mb = 2000, but the device has 1024 MB"),
        (
            'extends = "arm64"\n[quantization]\nencoder = []\ndecoder = []\nseq2seq = []\n',
            "quantization: no scheme for any of encoder, decoder, seq2seq, so nothing can be exported",
        ),
    ],
)
def test_a_contradiction_is_told(tmp_path: Path, text: str, said: str) -> None:
    assert told(tmp_path, text) == (said,)


def test_all_of_them_are_told_at_once(tmp_path: Path) -> None:
    text = 'extends = "rpi5"\nisa = ["avx2"]\ncores = 2\n[runtime]\nprovider = "QNNExecutionProvider"\nsequence = 3\n'
    assert len(told(tmp_path, text)) == 4


@pytest.mark.parametrize("key", ["runtime.provder", "session.thread", "emulator.cpus", "quantization.encoders"])
def test_an_unknown_key_in_a_section_is_told(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    (detail,) = told(tmp_path, f'extends = "arm64"\n[{section}]\n{name} = 1\n')
    assert detail.startswith(f"{key}: unknown key (did you mean")


@pytest.mark.parametrize(
    ("own", "runs"),
    [
        ("", True),
        ('[runtime]\nshapes = "static"\nsequence = 64\n[quantization]\ndecoder = []\n', False),
        ('[runtime]\nids = "int32"\n', False),
        ('[runtime]\nprovider = "XnnpackExecutionProvider"\n', False),
        ("[quantization]\nseq2seq = []\n", False),
    ],
)
def test_encoder_decoder_models_run_on_plain_cpus(tmp_path: Path, own: str, runs: bool) -> None:
    """A profile of one's own that extends another need not say that its device cannot."""
    (tmp_path / "mine.toml").write_text(f'extends = "arm64"\n{own}')
    found = target.load(str(tmp_path / "mine.toml"))
    assert bool(found.schemes("seq2seq")) == runs
    assert found.schemes("encoder")
