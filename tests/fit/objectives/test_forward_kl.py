"""Forward KL and its gradient, block by block, against dense float64 and autograd."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alens.fit.objectives.forward_kl import forward_kl
from alens.machine import blocks
from alens.rows.teacher import CompressedTeacher, ExactTeacher

H, E, D = 2, 3, 5


def exact(N: int, V: int, seed: int = 0) -> tuple[ExactTeacher, torch.Tensor]:
    """A teacher and its (N, V) float64 distributions."""
    random = torch.Generator().manual_seed(seed)
    final_ND = torch.randn(N, D, generator=random).half()
    W_U_DV, b_U_V = torch.randn(D, V, generator=random), torch.randn(V, generator=random)
    probs_NV = (final_ND.double() @ W_U_DV.double() + b_U_V.double()).softmax(-1)
    entropies = torch.special.entr(probs_NV).sum(-1).float()
    return ExactTeacher(final_ND, W_U_DV, b_U_V, entropies), probs_NV


def compressed(N: int, V: int, seed: int = 0, J: int = 6) -> tuple[CompressedTeacher, torch.Tensor]:
    """A teacher whose ids repeat, and the same as (N, V) float64 weights."""
    random = torch.Generator().manual_seed(seed)
    ids_NJ = torch.randint(0, V, (N, J), generator=random)
    weights_NJ = torch.rand(N, J, generator=random)
    weights_NJ /= weights_NJ.sum(1, keepdim=True)
    dense_NV = torch.zeros(N, V, dtype=torch.float64).scatter_add_(1, ids_NJ, weights_NJ.double())
    return CompressedTeacher(ids_NJ, weights_NJ, torch.rand(N, generator=random)), dense_NV


TEACHERS = {"exact": exact, "compressed": compressed}


def lens(N: int, V: int, seed: int = 1, scale: float = 1.0) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(seed)
    shapes = ((H, N, E), (H, E, V), (H, V))
    return tuple(scale * torch.randn(*shape, generator=random) for shape in shapes)


def dense(
    z_HNE: torch.Tensor,
    weight_HEV: torch.Tensor,
    bias_HV: torch.Tensor,
    probs_NV: torch.Tensor,
    entropies: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss (H,) and the gradients of `sum(loss * (1, 2, ...))`, all rows x vocabulary at once in float64."""
    weight, bias = (t.double().requires_grad_() for t in (weight_HEV, bias_HV))
    logits_HNV = z_HNE.double() @ weight + bias[:, None]
    loss_H = -(probs_NV * logits_HNV.log_softmax(-1)).sum(-1).mean(-1) - entropies.double().mean()
    grads = torch.autograd.grad((loss_H * torch.arange(1, H + 1)).sum(), (weight, bias))
    return loss_H.detach(), *grads


def ours(
    z_HNE: torch.Tensor,
    weight_HEV: torch.Tensor,
    bias_HV: torch.Tensor,
    teacher: ExactTeacher | CompressedTeacher,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    weight, bias = (t.clone().requires_grad_() for t in (weight_HEV, bias_HV))
    loss_H = forward_kl(z_HNE, weight, bias, teacher)
    grads = torch.autograd.grad((loss_H * torch.arange(1, H + 1)).sum(), (weight, bias))
    return loss_H.detach(), *grads


def assert_same(results: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> None:
    for a, b in zip(results, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", TEACHERS)
@given(N=st.integers(1, 9), V=st.integers(2, 40), seed=st.integers(0, 99), rows=st.integers(1, 10))
@settings(max_examples=40)
def test_value_and_gradient_are_the_dense_ones_for_any_shape_and_block(
    kind: str, N: int, V: int, seed: int, rows: int
) -> None:
    teacher, probs_NV = TEACHERS[kind](N, V, seed)
    drawn = lens(N, V, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "CPU_TILE_ROWS", rows)
        patch.setattr(blocks, "CPU_TILE_COLUMNS", 16)
        patch.setattr(blocks, "CPU_TEACHER_ROWS", 2 * rows)
        results = ours(*drawn, teacher)
    assert_same(results, dense(*drawn, probs_NV, teacher.entropies))


@pytest.mark.parametrize("kind", TEACHERS)
def test_large_logits_neither_overflow_nor_lose_the_loss(kind: str) -> None:
    teacher, probs_NV = TEACHERS[kind](5, 20)
    drawn = lens(5, 20, scale=12.0)  # logits in the hundreds: exp() overflows float32 at 88
    results, expected = ours(*drawn, teacher), dense(*drawn, probs_NV, teacher.entropies)
    torch.testing.assert_close(results[0].double(), expected[0], rtol=1e-5, atol=1e-4)
    assert all(bool(part.isfinite().all()) for part in results)


def test_loss_is_zero_and_flat_where_the_lens_is_the_model() -> None:
    teacher, _ = exact(7, 30)
    z_HNE = teacher.final_ND.float().expand(H, -1, -1)
    weight_HDV, bias_HV = teacher.W_U_DV.expand(H, -1, -1), teacher.b_U_V.expand(H, -1)
    loss_H, weight_grad, bias_grad = ours(z_HNE, weight_HDV, bias_HV, teacher)
    for part in (loss_H, weight_grad, bias_grad):
        torch.testing.assert_close(part, torch.zeros_like(part), rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [4, 37], ids=["few of V exact", "all of V but three exact"])
def test_compressed_loss_and_gradient_are_unbiased(k: int) -> None:
    """The means over many draws of the tail are as close to the exact values as their spread allows."""
    N, V, M, draws = 3, 40, 2, 2000
    teacher, probs_NV = exact(N, V)
    top_NK, ids_NK = probs_NV.topk(k, dim=-1)
    tail_NV = probs_NV.scatter(1, ids_NK, 0.0)
    weights_NJ = torch.cat([top_NK, tail_NV.sum(-1, keepdim=True).expand(-1, M) / M], 1).float()
    random, drawn = torch.Generator().manual_seed(3), lens(N, V)
    totals: list[torch.Tensor] = []
    for _ in range(draws):
        tail_NM = torch.multinomial(tail_NV, M, replacement=True, generator=random)
        one = ours(*drawn, CompressedTeacher(torch.cat([ids_NK, tail_NM], 1), weights_NJ, teacher.entropies))
        totals = [t + part.double() for t, part in zip(totals or (0, 0, 0), one, strict=True)]
    expected = dense(*drawn, probs_NV, teacher.entropies)
    for total, exactly, single in zip(totals, expected, one, strict=True):
        far = float((single - exactly).abs().max())
        assert float((total / draws - exactly).abs().max()) < max(0.1 * far, 2e-5)


def test_top_k_of_the_whole_vocabulary_is_the_exact_teacher() -> None:
    N, V = 4, 12
    teacher, probs_NV = exact(N, V)
    top_NK, ids_NK = probs_NV.topk(V, dim=-1)
    drawn = lens(N, V)
    whole = CompressedTeacher(ids_NK, top_NK.float(), teacher.entropies)
    for a, b in zip(ours(*drawn, whole), ours(*drawn, teacher), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", TEACHERS)
def test_no_tensor_is_larger_than_a_block_or_the_weights(
    kind: str, monkeypatch: pytest.MonkeyPatch, largest: Any
) -> None:
    N, V, rows = 64, 500, 4
    monkeypatch.setattr(blocks, "CPU_TILE_ROWS", rows)
    monkeypatch.setattr(blocks, "CPU_TEACHER_ROWS", rows)
    teacher, _ = TEACHERS[kind](N, V)
    drawn = lens(N, V)
    with largest:
        ours(*drawn, teacher)
    assert rows * V < largest.elements <= H * (E + 1) * V < N * V  # the largest are the gradients
