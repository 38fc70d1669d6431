from __future__ import annotations

import pytest

from edgetune.cli import doctor
from edgetune.cli.doctor import GPU_MEND, Finding


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_this_machine_can_do_the_work(edgetune) -> None:
    answer = edgetune("doctor", "--json")
    found = answer.json
    assert answer.code == 0, found["findings"]
    assert found["ok"] is True
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_bytes"] > 1e9
    assert found["machine"]["disk_free_bytes"] > 0
    assert isinstance(found["machine"]["isa"], list)
    assert found["torch"]["version"]
    assert "CPUExecutionProvider" in found["onnxruntime"]["providers"]
    assert found["bitsandbytes"]["works"] is True
    assert 0.05 < found["bitsandbytes"]["nf4_relative_error"] < 0.15
    assert "CUDA" in found["not_run"]


def test_people_are_told_too(edgetune) -> None:
    answer = edgetune("doctor")
    for word in ("machine", "isa", "onnxruntime", "bitsandbytes", "not run: the CUDA paths"):
        assert word in answer.out


def test_two_onnxruntimes_at_once_are_an_error_with_the_mend(edgetune, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: "1.31.1" if name.startswith("onnxruntime") else real(name))
    answer = edgetune("doctor", "--json")
    assert answer.code == 2
    (error,) = [finding for finding in answer.json["findings"] if finding["level"] == "error"]
    assert error["mend"] == GPU_MEND == "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"
    assert answer.json["ok"] is False


def test_a_cuda_torch_without_a_gpu_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    findings: list[Finding] = []
    found = doctor.torch_and_gpu(findings)
    assert found["gpu"] is None
    assert found["torch"]["build"] == "CUDA 13.0"
    assert levels(findings) == ["note"]
    assert "whl/cpu" in findings[0].mend


def test_a_driver_without_a_cuda_torch_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    findings: list[Finding] = []
    doctor.torch_and_gpu(findings)
    assert levels(findings) == ["note"]
    assert "NVIDIA" in findings[0].what


def test_a_bitsandbytes_that_loses_the_weights_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes import functional

    monkeypatch.setattr(functional, "dequantize_4bit", lambda packed, state: packed.new_zeros(64, 64).float())
    findings: list[Finding] = []
    assert doctor.four_bits(findings)["works"] is False
    assert levels(findings) == ["error"]
    assert "--method lora" in findings[0].mend


def test_missing_and_old_packages_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=2.0", "peft>=99", "nothing-of-that-name>=1", 'rich>=1; extra == "test"', 'no-such-thing==2; extra == "demo"']

    class About:
        def get_all(self, name: str) -> list[str]:
            return ["demo", "test"]

    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: About())
    findings: list[Finding] = []
    found = doctor.extras(findings)
    assert found["test"] == {"complete": True, "missing": []}
    assert found["demo"] == {"complete": False, "missing": ["no-such-thing"], "install": 'pip install "edgetune[demo]"'}
    assert levels(findings) == ["error", "error"]
    assert "peft" in findings[0].what
    assert findings[1].mend == 'pip install "nothing-of-that-name>=1"'


def test_onnxruntime_gpu_stands_in_for_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["onnxruntime>=1.23"])
    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: {})
    monkeypatch.setattr(doctor, "installed", lambda name: "1.31.1" if name == "onnxruntime-gpu" else None)

    class About:
        def get_all(self, name: str) -> None:
            return None

    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: About())
    findings: list[Finding] = []
    doctor.extras(findings)
    assert findings == []


def test_little_disk_and_an_unknown_machine_are_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetune import target
    from edgetune.errors import TargetError

    def unknown() -> str:
        raise TargetError("no profile fits this machine (riscv64)")

    monkeypatch.setattr(target, "detect", unknown)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000_000})())
    findings: list[Finding] = []
    assert doctor.machine(findings)["target"] is None
    assert levels(findings) == ["note", "note"]
    assert "riscv64" in findings[0].what
    assert "1.0 GB" in findings[1].what
