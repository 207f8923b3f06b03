"""Products sent to another library are as exact as before, and the switch is put back."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from alens.machine import products

needs_switch = pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "matmul"), reason="torch before 2.9 has no switch"
)


def switch() -> Any:
    return torch.backends.mkldnn.matmul


@pytest.fixture
def unmoved() -> Iterator[None]:
    """Both switches say "ieee" when the test begins: one that an earlier test left moved would pass for what was before."""
    switches = (switch(), torch.backends.cuda.matmul)
    before = [one.fp32_precision for one in switches]
    for one in switches:
        one.fp32_precision = "ieee"
    yield
    for one, value in zip(switches, before, strict=True):
        one.fp32_precision = value


def test_products_inside_are_float32() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(128, 64, generator=random), torch.randn(64, 512, generator=random)
    with products.fast_float32():
        product = a @ b
    torch.testing.assert_close(product.double(), a.double() @ b.double(), rtol=0, atol=3e-5)


@needs_switch
@pytest.mark.parametrize("exact", [True, False])
def test_the_switch_is_moved_only_where_products_stay_exact_and_put_back(
    monkeypatch: pytest.MonkeyPatch, unmoved: None, exact: bool
) -> None:
    monkeypatch.setattr(products, "onednn_is_exact", lambda: exact)
    with pytest.raises(ZeroDivisionError), products.fast_float32():
        assert switch().fp32_precision == ("bf16" if exact else "ieee")
        raise ZeroDivisionError
    assert switch().fp32_precision == "ieee"


def test_a_library_that_rounds_to_bfloat16_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = lambda a, b: (a.bfloat16().float(), b)[0]  # noqa: E731  # as with AMX; the other factor is the identity
    monkeypatch.setattr(torch.Tensor, "__matmul__", rounds)
    assert not products.onednn_is_exact.__wrapped__()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_logits_of_16_bit_numbers_are_rounded_only_where_the_unembedding_is(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    final_ND, W_U_DV = (torch.randn(shape, generator=random).to(dtype) for shape in ((32, 64), (64, 512)))
    b_U_V = torch.randn(512, generator=random).to(dtype)
    exact = final_ND.double() @ W_U_DV.double() + b_U_V.double()
    whole = products.unembed(final_ND, W_U_DV.float(), b_U_V.float())
    torch.testing.assert_close(whole.double(), exact, rtol=0, atol=3e-5)
    out = torch.empty(32, 512)
    assert torch.equal(products.unembed(final_ND, W_U_DV.float(), b_U_V.float(), out=out), whole)
    rounded = products.unembed(final_ND, W_U_DV, b_U_V, out=out)
    assert rounded.dtype == torch.float32 and torch.equal(rounded, rounded.to(dtype).float())


def test_tf32_is_allowed_for_16_bit_rows_alone_and_for_their_product_alone(
    monkeypatch: pytest.MonkeyPatch,
    unmoved: None,
) -> None:
    """Its 11 bits hold them; float32 rows would be cut."""
    switch, seen, addmm = torch.backends.cuda.matmul, [], torch.addmm

    def spied(*args: Any, **more: Any) -> torch.Tensor:
        seen.append(switch.fp32_precision)
        return addmm(*args, **more)

    monkeypatch.setattr(torch, "addmm", spied)
    for rows in (torch.ones(2, 3), torch.ones(2, 3).bfloat16()):
        products.unembed(rows, torch.ones(3, 4), torch.ones(4))
    assert seen == ["ieee", "tf32"]
    assert switch.fp32_precision == "ieee"
    with pytest.raises(RuntimeError):
        products.unembed(torch.ones(2, 3).bfloat16(), torch.ones(9, 4), torch.ones(4))
    assert switch.fp32_precision == "ieee"
