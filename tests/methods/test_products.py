"""Products by oneDNN are those of MKL, and only plain numbers in float32 go that way."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgetune.methods import products


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Results of oneDNN's products, on any processor that has it."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("torch has no oneDNN here")
    monkeypatch.setattr(products, "pays", lambda: True)
    found: list[Any] = []
    inner = products._Quick.__torch_function__

    def watched(self: Any, what: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        answer = inner(self, what, types, given, named)
        if what is torch.nn.functional.linear:
            found.append(answer)
        return answer

    monkeypatch.setattr(products._Quick, "__torch_function__", watched)
    return found


@pytest.mark.parametrize("shape", [(3, 16), (2, 5, 16), (0, 16)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_numbers(called: list[Any], shape: tuple[int, ...], bias: bool) -> None:
    layer, states = torch.nn.Linear(16, 7, bias=bias), torch.randn(shape)
    with torch.no_grad():
        expected = layer(states)
        with products.quick():
            found = layer(states)
    assert len(called) == 1
    assert found.shape == expected.shape and torch.allclose(found, expected, atol=1e-5)


def test_other_numbers_go_their_own_way(called: list[Any]) -> None:
    layer = torch.nn.Linear(8, 4)
    with torch.no_grad(), products.quick():
        assert layer.double()(torch.randn(2, 8).double()).dtype is torch.float64
        assert layer.bfloat16()(torch.randn(2, 8).bfloat16()).dtype is torch.bfloat16
        assert torch.allclose(layer.float()(torch.ones(8, 2).T), layer(torch.ones(2, 8)), atol=1e-5), "not contiguous"


def test_only_a_processor_that_gains(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    other = tmp_path / "cpuinfo"
    other.write_text("vendor_id\t: GenuineIntel\n")
    monkeypatch.setattr(products, "CPUINFO", other)
    products.pays.cache_clear()
    assert not products.pays()
    products.pays.cache_clear()
