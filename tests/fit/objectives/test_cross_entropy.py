"""Cross-entropy and its three gradients, tile by tile, against dense float64 and autograd."""

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alens.fit.objectives import cross_entropy as module
from alens.fit.objectives import cross_entropy_triton
from alens.fit.objectives.cross_entropy import cross_entropy
from alens.fit.objectives.cross_entropy_tiles import Wanted, loss_and_gradients
from alens.machine import blocks
from alens.rows.teacher import CompressedTeacher, ExactTeacher, keeping_blocks

Teacher = CompressedTeacher | ExactTeacher
Tensors = tuple[torch.Tensor, ...]

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_is_decided() -> Iterator[None]:
    """Whether there is a kernel is decided once in a process."""
    decisions = (module._triton_kernel, module._without_kernel, cross_entropy_triton._trial)
    for decision in decisions:
        decision.cache_clear()
    yield
    for decision in decisions:
        decision.cache_clear()


def a_teacher(kind: str, N: int, V: int, seed: int = 0) -> tuple[Teacher, torch.Tensor]:
    """A teacher, compressed with ids that repeat or exact, and the same as (N, V) float64."""
    random = torch.Generator().manual_seed(seed)
    if kind == "exact":
        final_ND, W_U_DV = torch.randn(N, 5, generator=random), torch.randn(5, V, generator=random)
        probs_NV = (final_ND.double() @ W_U_DV.double()).softmax(-1)
        return ExactTeacher(final_ND, W_U_DV, torch.zeros(V), torch.zeros(N)), probs_NV
    ids_NJ = torch.randint(0, V, (N, 6), generator=random)
    weights_NJ = torch.rand(N, 6, generator=random).softmax(-1)
    dense_NV = torch.zeros(N, V, dtype=torch.float64).scatter_add_(1, ids_NJ, weights_NJ.double())
    return CompressedTeacher(ids_NJ, weights_NJ, torch.zeros(N)), dense_NV


def some(H: int, N: int, F: int, V: int, seed: int = 1) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=random) for shape in ((H, N, F), (H, F, V), (H, V)))


def dense(inputs: Tensors, probs_NV: torch.Tensor) -> Tensors:
    """Losses and the gradients of `sum(loss * (1, 2, ...))`, all rows x vocabulary at once in float64."""
    features, weight, bias = (tensor.double().requires_grad_() for tensor in inputs)
    logits_HNV = features @ weight + bias[:, None]
    loss_H = -(probs_NV * logits_HNV.log_softmax(-1)).sum(-1).mean(-1)
    return loss_H, *torch.autograd.grad(
        loss_H @ torch.arange(1.0, len(loss_H) + 1).double(), (features, weight, bias)
    )


def ours(inputs: Tensors, teacher: Teacher) -> Tensors:
    features, weight, bias = (tensor.detach().clone().requires_grad_() for tensor in inputs)
    loss_H = cross_entropy(features, weight, bias, teacher)
    return loss_H, *torch.autograd.grad(loss_H @ torch.arange(1.0, len(loss_H) + 1), (features, weight, bias))


def assert_same(results: Tensors, expected: Tensors, rtol: float = 1e-4, atol: float = 2e-5) -> None:
    for ours_, exact in zip(results, expected, strict=True):
        torch.testing.assert_close(ours_.double(), exact, rtol=rtol, atol=atol)


def set_tiles(patch: pytest.MonkeyPatch, rows: int, columns: int, teacher_rows: int = 4) -> None:
    patch.setattr(blocks, "CPU_TILE_ROWS", rows)
    patch.setattr(blocks, "CPU_TILE_COLUMNS", columns)
    patch.setattr(blocks, "CPU_TEACHER_ROWS", teacher_rows)


@pytest.mark.parametrize("kind", ["exact", "compressed"])
@given(data=st.data())
@settings(max_examples=60)
def test_values_and_gradients_are_the_dense_ones_for_any_shape_and_tile(
    kind: str, data: st.DataObject
) -> None:
    H, N, F, V = (data.draw(st.integers(low, high)) for low, high in ((1, 3), (1, 11), (1, 5), (2, 40)))
    teacher, probs_NV = a_teacher(kind, N, V, data.draw(st.integers(0, 99)))
    inputs = some(H, N, F, V)
    with pytest.MonkeyPatch.context() as patch:
        set_tiles(patch, *(data.draw(st.integers(1, high)) for high in (12, 41, 12)))
        results = ours(inputs, teacher)
    assert_same(results, dense(inputs, probs_NV))


@pytest.mark.parametrize("kind", ["exact", "compressed"])
@pytest.mark.parametrize(
    "slope", [-40.0, 40.0], ids=["largest in the first tile", "largest in the last tile"]
)
def test_extreme_logits_neither_overflow_nor_vanish(
    kind: str, slope: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of two tiles are a thousand nats apart: `exp` in float32 overflows at 88."""
    set_tiles(monkeypatch, 4, 8)
    teacher, probs_NV = a_teacher(kind, 6, 30)
    features, weight, bias = some(2, 6, 3, 30)
    inputs = features, weight, bias + slope * torch.arange(30)
    assert_same(ours(inputs, teacher), dense(inputs, probs_NV), atol=1e-3)


def test_a_token_that_cannot_be_has_probability_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tiles(monkeypatch, 4, 8)
    features, weight, bias = some(2, 6, 3, 30)
    bias[:, :9] = -torch.inf  # a whole tile and more
    teacher = CompressedTeacher(torch.full((6, 1), 20), torch.ones(6, 1), torch.zeros(6))
    loss_H, *gradients = ours((features, weight.abs(), bias), teacher)
    assert loss_H.isfinite().all()
    assert not gradients[2][:, :9].any()


def test_bfloat16_weights_get_bfloat16_gradients_of_float32_sums() -> None:
    teacher, probs_NV = a_teacher("compressed", 300, 50)
    inputs = tuple(tensor.bfloat16() for tensor in some(2, 300, 4, 50))
    results = ours(inputs, teacher)
    _, made = module._compute(*inputs, teacher, Wanted(True, True, True))  # autograd would cast in silence
    assert [part.dtype for part in (results[0], *made)] == [torch.float32] + 3 * [torch.bfloat16]
    expected = dense(inputs, probs_NV)
    assert_same(results[:1], expected[:1])
    assert_same(results[1:], expected[1:], rtol=2**-8, atol=1e-5)


def test_heads_may_share_a_frozen_weight_that_is_never_copied(largest: Any) -> None:
    H, N, F, V = 6, 8, 5, 40
    teacher, probs_NV = a_teacher("compressed", N, V)
    features, weight, bias = some(H, N, F, V)
    shared = (features, weight[:1].expand(H, -1, -1), bias[:1].expand(H, -1))
    expected = dense(shared, probs_NV)
    features.requires_grad_()
    with largest:
        loss_H = cross_entropy(*shared, teacher)
        (gradient,) = torch.autograd.grad(loss_H @ torch.arange(1.0, H + 1), features)
    assert_same((loss_H, gradient), expected[:2])
    assert largest.elements < H * F * V


@pytest.mark.parametrize("asked", range(8))
def test_exactly_the_gradients_asked_for_are_made(asked: int) -> None:
    teacher, probs_NV = a_teacher("compressed", 5, 20)
    inputs, wanted = some(2, 5, 3, 20), Wanted(*(bool(asked >> bit & 1) for bit in range(3)))
    loss_H, made = loss_and_gradients(*inputs, teacher, wanted)
    assert [part is not None for part in made] == list(wanted)
    exact = dense(tuple(tensor[:1] for tensor in inputs), probs_NV)
    for result, expected in zip((loss_H, *made), exact, strict=True):
        if result is not None:
            torch.testing.assert_close(result[:1].double(), expected, rtol=1e-4, atol=1e-5)


def test_without_gradients_only_the_loss_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, probs_NV = a_teacher("compressed", 5, 20)
    inputs = some(2, 5, 3, 20)
    asked = []
    monkeypatch.setattr(module, "loss_and_gradients", lambda *a: asked.append(a[4]) or loss_and_gradients(*a))
    weight = inputs[1].clone().requires_grad_()
    with torch.no_grad():
        loss_H = cross_entropy(inputs[0], weight, inputs[2], teacher)
    frozen_H = cross_entropy(*inputs, teacher)
    assert asked == [Wanted(), Wanted()]
    assert not loss_H.requires_grad
    assert_same((loss_H, frozen_H), (dense(inputs, probs_NV)[0].detach(),) * 2)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_gradient_is_handed_over_without_a_copy(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    teacher, probs_NV = a_teacher("compressed", 5, 20)
    inputs = some(1, 5, 3, 20)
    made = []

    def watched(*arguments: Any) -> Any:
        loss_H, gradients = loss_and_gradients(*arguments)
        made.append(gradients[1].data_ptr())
        return loss_H, gradients

    monkeypatch.setattr(module, "loss_and_gradients", watched)
    weight = inputs[1].clone().requires_grad_()
    (scale * cross_entropy(inputs[0], weight, inputs[2], teacher)).sum().backward()
    assert made == [weight.grad.data_ptr()]
    torch.testing.assert_close(weight.grad.double(), scale * dense(inputs, probs_NV)[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["exact", "compressed"])
def test_some_heads_have_their_losses_and_gradients_and_the_others_none(kind: str) -> None:
    teacher, probs_NV = a_teacher(kind, 7, 20)
    features, weight, bias = some(4, 7, 3, 20)
    heads = [3, 0]
    expected = dense((features[heads], weight[heads], bias[heads]), probs_NV)
    leaves = weight.requires_grad_(), bias.requires_grad_()
    loss_U = cross_entropy(features[heads], *leaves, teacher, heads)
    gradients = torch.autograd.grad(loss_U @ torch.tensor([1.0, 2.0]), leaves)
    assert_same((loss_U, *(part[heads] for part in gradients)), (expected[0], *expected[2:]))
    assert not any(bool(part[[1, 2]].any()) for part in gradients)


def test_a_second_backward_is_refused() -> None:
    teacher, _ = a_teacher("compressed", 5, 20)
    features, weight, bias = some(1, 5, 3, 20)
    loss_H = cross_entropy(features, weight.requires_grad_(), bias, teacher)
    loss_H.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="a second time"):
        loss_H.sum().backward()


def test_a_kernel_takes_the_place_of_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, probs_NV = a_teacher("compressed", 5, 20)
    features, weight, bias = some(2, 5, 3, 20)

    def kernel(features: Any, weight: Any, bias: Any, ids: Any, weights: Any, **_: Any) -> Tensors:
        same = CompressedTeacher(ids, weights, torch.zeros(5))
        loss_H, made = loss_and_gradients(features, weight, bias, same, Wanted(weight=True, bias=True))
        return loss_H, made[1], made[2]

    monkeypatch.setattr(module, "_kernel_for", lambda *_: kernel)
    monkeypatch.setattr(module, "loss_and_gradients", None)
    weight.requires_grad_()
    loss_H = cross_entropy(features, weight, bias, teacher)
    (gradient,) = torch.autograd.grad(loss_H @ torch.arange(1.0, 3.0), weight)
    expected = dense((features, weight.detach(), bias), probs_NV)
    assert_same((loss_H, gradient), (expected[0], expected[2]))


def test_the_kernel_is_asked_for_weight_and_bias_of_compressed_targets_on_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_triton_kernel", lambda *_: max)
    on_cuda, on_cpu = (SimpleNamespace(is_cuda=cuda, shape=(2, 5, 3), device="") for cuda in (True, False))
    compressed, exact = a_teacher("compressed", 2, 5)[0], a_teacher("exact", 2, 5)[0]
    mine = Wanted(weight=True, bias=True)
    assert module._kernel_for(on_cuda, compressed, mine) is max
    others = ((on_cpu, compressed, mine), (on_cuda, exact, mine), (on_cuda, compressed, Wanted()))
    assert [module._kernel_for(*other) for other in others] == [None, None, None]
    assert module._kernel_for(on_cuda, compressed, Wanted(features=True, weight=True)) is None


@pytest.mark.parametrize(
    "triton_module",
    [
        None,
        SimpleNamespace(available=lambda _: "no Triton"),
        SimpleNamespace(available=lambda _: None, trial=lambda *_: "no compiler"),
    ],
)
def test_a_missing_kernel_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, triton_module: Any
) -> None:
    monkeypatch.setitem(sys.modules, "alens.fit.objectives.cross_entropy_triton", triton_module)
    with caplog.at_level(logging.WARNING, logger="alens"):
        assert [module._triton_kernel(features, CPU) for features in (1, 2, 3)] == [None, None, None]
    assert len(caplog.records) == 1


def test_a_kernel_that_can_run_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    there = SimpleNamespace(available=lambda _: None, trial=lambda *_: None, cross_entropy_and_gradients=max)
    monkeypatch.setitem(sys.modules, "alens.fit.objectives.cross_entropy_triton", there)
    assert module._triton_kernel(1, CPU) is max


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not made for this system")
def test_a_triton_that_imports_and_cannot_launch_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here it has no driver; elsewhere it may lack a C compiler, or a directory that it can write."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    with caplog.at_level(logging.WARNING, logger="alens"):
        assert module._triton_kernel(64, CPU) is None
        assert module._triton_kernel(60, CPU) is None  # padded to 64: one trial
    (record,) = caplog.records
    assert "no Triton kernel for the loss (Triton cannot build or start it: " in record.message


AGREE = """
import sys, torch
from alens.fit.objectives.cross_entropy import _agreed
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
print(_agreed("no compiler" if rank else None, torch.device("cpu")), _agreed(None, torch.device("cpu")), sep="; ")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_where_one_process_lacks_the_kernel_no_process_takes_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", AGREE]
    processes = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "met")], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    assert [process.communicate(timeout=300)[0] for process in processes] == [
        "another process of this fit cannot use it; None\n",
        "no compiler; None\n",
    ]


def test_targets_are_put_in_order_once_for_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel of each layer gets what that of the first kept."""
    teacher, _ = a_teacher("compressed", 2, 5)
    orders = []

    def kernel(*tensors: Any, kept: Any, heads: Any) -> Tensors:
        orders.append(cross_entropy_triton._entries(*tensors[3:], 5, kept))
        return torch.zeros(2), torch.zeros(2, 3, 5), torch.zeros(2, 5)

    monkeypatch.setattr(module, "_kernel_for", lambda *_: kernel)
    for batch in (keeping_blocks(teacher), keeping_blocks(teacher), teacher):
        for _ in range(2):
            module._compute(*some(2, 2, 3, 5), batch, Wanted(weight=True, bias=True))
    assert orders[0] is orders[1] and orders[2] is orders[3]
    assert len({id(order) for order in orders}) == 4
