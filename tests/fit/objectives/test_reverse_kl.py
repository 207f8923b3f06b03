"""Reverse KL and its gradients, block by block, against dense float64 and autograd."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alens.errors import RequestError
from alens.fit.objectives.reverse_kl import ReverseKL
from alens.lens.designs.readout import Readout
from alens.machine import blocks
from alens.rows.teacher import CompressedTeacher, ExactTeacher

U, F, D = 2, 3, 5


def case(N: int, V: int, seed: int, scale: float = 1.0) -> tuple[ExactTeacher, tuple[torch.Tensor, ...]]:
    """A teacher; features, weight and bias."""
    random = torch.Generator().manual_seed(seed)
    final_ND, W_U_DV = torch.randn(N, D, generator=random).half(), torch.randn(D, V, generator=random)
    teacher = ExactTeacher(final_ND, W_U_DV, torch.randn(V, generator=random), torch.zeros(N))
    parts = [scale * torch.randn(*shape, generator=random) for shape in ((U, N, F), (U, F, V), (U, V))]
    return teacher, tuple(part.requires_grad_() for part in parts)


def dense(teacher: ExactTeacher, parts: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Loss and gradients of `sum(loss * (1, 2, ...))`, in float64 and all at once."""
    features, weight, bias = doubles = [part.detach().double().requires_grad_() for part in parts]
    lens_UNV = (features @ weight + bias[:, None]).log_softmax(-1)
    model_NV = teacher.final_ND.double() @ teacher.W_U_DV.double() + teacher.b_U_V.double()
    loss_U = (lens_UNV.exp() * (lens_UNV - model_NV.log_softmax(-1))).sum(-1).mean(-1)
    return [loss_U.detach(), *torch.autograd.grad((loss_U * torch.arange(1, U + 1)).sum(), doubles)]


def ours(teacher: ExactTeacher, parts: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    loss_U = ReverseKL().loss(Readout(*parts), teacher)
    return [loss_U.detach(), *torch.autograd.grad((loss_U * torch.arange(1, U + 1)).sum(), parts)]


@given(N=st.integers(1, 9), V=st.integers(2, 40), seed=st.integers(0, 99), rows=st.integers(1, 10))
@settings(max_examples=40)
def test_value_and_gradients_are_the_dense_ones_for_any_shape_and_block(
    N: int, V: int, seed: int, rows: int
) -> None:
    drawn = case(N, V, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CPU_ROWS", rows)
        results = ours(*drawn)
    for a, b in zip(results, dense(*drawn), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-5)


def test_large_logits_neither_overflow_nor_lose_the_loss() -> None:
    drawn = case(5, 20, 1, scale=12.0)
    results = ours(*drawn)
    torch.testing.assert_close(results[0].double(), dense(*drawn)[0], rtol=1e-4, atol=1e-3)
    assert all(bool(part.isfinite().all()) for part in results)


def test_a_part_that_needs_no_gradient_gets_none() -> None:
    teacher, (features, weight, bias) = case(4, 9, 2)
    frozen = weight.detach()[:1].expand(U, -1, -1)  # as of the model's unembedding
    loss_U = ReverseKL().loss(Readout(features, frozen, bias), teacher)
    grads = torch.autograd.grad((loss_U * torch.arange(1, U + 1)).sum(), (features, bias))
    expected = dense(teacher, (features, frozen, bias))
    torch.testing.assert_close(grads[0].double(), expected[1], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(grads[1].double(), expected[3], rtol=1e-4, atol=2e-5)


def test_parameters_in_bfloat16_get_gradients_in_bfloat16() -> None:
    teacher, parts = case(4, 9, 2)
    low = tuple(part.detach().bfloat16().requires_grad_() for part in parts)
    results, expected = ours(teacher, low), dense(teacher, low)
    torch.testing.assert_close(results[0].double(), expected[0], rtol=1e-4, atol=1e-4)
    for a, b in zip(results[1:], expected[1:], strict=True):
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a.double(), b, rtol=1e-2, atol=1e-3)


def test_the_compressed_teacher_is_refused() -> None:
    _, parts = case(2, 9, 0)
    teacher = CompressedTeacher(torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, 1), torch.zeros(2))
    with pytest.raises(RequestError, match="fit with --teacher exact"):
        ReverseKL().loss(Readout(*parts), teacher)
