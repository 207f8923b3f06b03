"""What CUDA computes against float64: the Triton kernel at its real tiles, and the logits of 16-bit models."""

import pytest
import torch

from alens.fit.objectives import cross_entropy_triton
from alens.machine.products import unembed

from ..fit.objectives import dense_reference

pytestmark = pytest.mark.gpu

NEAR = {"bfloat16": 1e-2, "tf32": 2e-3}
"""The largest error of a tensor, as a share of its norm: factors keep 8 or 11 bits."""


def drawn(H: int, N: int, F: int, V: int, J: int, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Features, weights, biases, ids and their weights, as of text: the first tokens are in nearly every row."""
    random = torch.Generator(device.type).manual_seed(0)
    ranks_V = torch.arange(V, device=device) + 3.0
    ids_NJ = torch.multinomial((1 / ranks_V).expand(N, V), J, generator=random)
    weights_NJ = torch.rand(N, J, device=device, generator=random) ** 4
    return (
        torch.randn(H, N, F, device=device, generator=random),
        0.2 * torch.randn(H, F, V, device=device, generator=random),
        -ranks_V.log().repeat(H, 1),
        ids_NJ,
        weights_NJ / weights_NJ.sum(1, keepdim=True),
    )


@pytest.mark.parametrize("products", ["bfloat16", "tf32"])
@pytest.mark.parametrize(
    ("H", "N", "F", "V", "J"),
    [(1, 33, 64, 1001, 5), (12, 300, 100, 5003, 16), (17, 257, 64, 2049, 8), (2, 513, 128, 50257, 64)],
)
def test_the_kernel_is_near_float64_and_repeats_bit_for_bit(
    gpu: torch.device, H: int, N: int, F: int, V: int, J: int, products: cross_entropy_triton.Products
) -> None:
    tensors = drawn(H, N, F, V, J, gpu)
    poison = torch.full((2**28,), float("nan"), device=gpu)
    del poison  # so that memory which no program writes shows
    first, second = (
        cross_entropy_triton.cross_entropy_and_gradients(*tensors, products=products) for _ in range(2)
    )
    exact = [
        torch.cat(parts)
        for parts in zip(
            *(
                dense_reference.cross_entropy_and_gradients(
                    *(part[h : h + 1] for part in tensors[:3]), *tensors[3:]
                )
                for h in range(H)
            ),
            strict=True,
        )
    ]
    for ours, again, wanted in zip(first, second, exact, strict=True):
        assert torch.equal(ours, again)
        assert float((ours.double() - wanted).norm() / wanted.norm()) < NEAR[products]


def test_the_trial_of_the_kernel_succeeds(gpu: torch.device) -> None:
    assert cross_entropy_triton.available(64) is None
    assert cross_entropy_triton.trial(64, gpu) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tf32_loses_nothing_of_16_bit_numbers(gpu: torch.device, dtype: torch.dtype) -> None:
    random = torch.Generator(gpu.type).manual_seed(0)
    final_ND, W_U_DV = (
        torch.randn(shape, device=gpu, generator=random).to(dtype) for shape in ((256, 576), (576, 5000))
    )
    b_U_V = torch.randn(5000, device=gpu, generator=random)
    ours = unembed(final_ND, W_U_DV.float(), b_U_V)
    exact = final_ND.double() @ W_U_DV.double() + b_U_V.double()
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=2e-4)
