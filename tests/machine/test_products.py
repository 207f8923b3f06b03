"""Products sent to another library are as exact as before, and the switch is put back."""

from typing import Any

import pytest
import torch

from alens.machine import products

needs_switch = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has no switch"
)


def switch() -> Any:
    return torch.backends.mkldnn.matmul


def test_products_inside_are_float32() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(128, 64, generator=random), torch.randn(64, 512, generator=random)
    with products.fast_float32():
        product = a @ b
    torch.testing.assert_close(product.double(), a.double() @ b.double(), rtol=0, atol=3e-5)


@needs_switch
@pytest.mark.parametrize("exact", [True, False])
def test_the_switch_is_moved_only_where_products_stay_exact_and_put_back(
    monkeypatch: pytest.MonkeyPatch, exact: bool
) -> None:
    monkeypatch.setattr(products, "onednn_is_exact", lambda: exact)
    before = switch().fp32_precision
    with pytest.raises(ZeroDivisionError), products.fast_float32():
        assert switch().fp32_precision == ("bf16" if exact else before)
        raise ZeroDivisionError
    assert switch().fp32_precision == before


def test_a_library_that_rounds_to_bfloat16_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = lambda a, b: (a.bfloat16().float(), b)[0]  # noqa: E731  # as with AMX; the other factor is the identity
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounds)
    assert not products.onednn_is_exact.__wrapped__()
