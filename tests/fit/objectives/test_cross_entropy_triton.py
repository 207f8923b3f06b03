"""The Triton kernel in Triton's interpreter against dense float64, and what an H100's compiler makes of it."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alens.fit.objectives import cross_entropy_triton

from . import dense_reference
from .interpreted_kernel import InterpretedKernel

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not made for this system"
)


@pytest.fixture(scope="module")
def kernel() -> Iterator[InterpretedKernel]:
    started = InterpretedKernel()
    yield started
    started.close()


def drawn(
    H: int = 2, N: int = 21, F: int = 5, V: int = 45, J: int = 6, seed: int = 0, scale: float = 1.0
) -> tuple[torch.Tensor, ...]:
    """Features, weight, bias, ids (with repeats) and weights; `scale` is the size of the logits' parts."""
    random = torch.Generator().manual_seed(seed)
    ids_NJ = torch.randint(0, V, (N, J), generator=random)
    ids_NJ[:, -1] = ids_NJ[:, 0]
    weights_NJ = torch.rand(N, J, generator=random)
    shapes = ((H, N, F), (H, F, V), (H, V))
    lens = (scale * torch.randn(*shape, generator=random) for shape in shapes)
    return *lens, ids_NJ, weights_NJ / weights_NJ.sum(1, keepdim=True)


def assert_same(results: tuple[torch.Tensor, ...], tensors: tuple[torch.Tensor, ...], **near: float) -> None:
    for ours, exact in zip(results, dense_reference.cross_entropy_and_gradients(*tensors), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), exact, **{"rtol": 1e-4, "atol": 1e-5, **near})


@needs_triton
@given(
    H=st.integers(1, 3),
    N=st.integers(1, 40),
    F=st.integers(1, 20),
    V=st.integers(2, 70),
    J=st.integers(1, 9),
    seed=st.integers(0, 99),
    sizes=st.tuples(*[st.sampled_from([16, 32])] * 4),
    programs=st.sampled_from([1, 3, 1024]),
)
@settings(max_examples=15)
def test_values_and_gradients_are_the_dense_ones_for_any_shape_and_tile(
    kernel: InterpretedKernel,
    H: int,
    N: int,
    F: int,
    V: int,
    J: int,
    seed: int,
    sizes: tuple[int, ...],
    programs: int,
) -> None:
    tensors = drawn(H, N, F, V, J, seed)
    assert_same(kernel(*tensors, tiles=sizes, programs=programs), tensors)


@needs_triton
def test_heads_are_taken_in_groups_and_in_parts_of_a_group(kernel: InterpretedKernel) -> None:
    tensors = drawn(H=7, F=16)  # 5 heads of a launch are one program's 4 and 1 more
    assert_same(kernel(*tensors, heads_at_once=5), tensors)


@needs_triton
def test_some_heads_leave_zeros_to_the_others(kernel: InterpretedKernel) -> None:
    features, weight, bias, *targets = drawn(H=6)
    heads = [5, 0, 1, 3]
    loss, *gradients = kernel(features[heads], weight, bias, *targets, heads=heads, heads_at_once=3)
    mine = features[heads], weight[heads], bias[heads], *targets
    assert_same((loss, *(part[heads] for part in gradients)), mine)
    assert not any(bool(part[[2, 4]].any()) for part in gradients)


@needs_triton
def test_one_token_may_have_more_entries_than_a_program_takes_at_once(kernel: InterpretedKernel) -> None:
    tensors = drawn(N=37)
    tensors[3][:, :3] = 11
    assert_same(kernel(*tensors), tensors)


@needs_triton
@pytest.mark.parametrize(("scale", "near"), [(12.0, 1e-3), (40.0, 1e-2)], ids=["hundreds", "thousands"])
def test_large_logits_do_not_overflow(kernel: InterpretedKernel, scale: float, near: float) -> None:
    tensors = drawn(scale=scale)  # exp() overflows float32 at 88
    assert_same(kernel(*tensors), tensors, rtol=near, atol=near)


@needs_triton
@pytest.mark.parametrize("first", [0, 1], ids=["first tile", "second tile"])
@pytest.mark.parametrize("nats", [80.0, 95.0], ids=["88 nats are within", "beyond"])
def test_a_row_whose_logits_rise_after_the_first_tile_is_summed_with_its_own_maximum(
    kernel: InterpretedKernel, nats: float, first: int
) -> None:
    """The largest logit of the first tile is the shift; a later one may be above it by more than float32 holds."""
    tensors = drawn(H=2, N=30, V=70, scale=0.3)
    tensors[2][1, 16 * first :] += nats  # one head of two
    tensors[0][1, 5:9] *= 0  # some of its rows say only the bias
    assert_same(kernel(*tensors), tensors, rtol=1e-3, atol=1e-3)


@needs_triton
@pytest.mark.parametrize(
    ("H", "N", "F", "V"),
    [
        (1, 33, 64, 301),
        pytest.param(12, 70, 64, 130, marks=pytest.mark.slow),
        pytest.param(17, 40, 128, 129, marks=pytest.mark.slow),
    ],
)
def test_the_tiles_of_a_gpu_give_the_dense_values(
    kernel: InterpretedKernel, H: int, N: int, F: int, V: int
) -> None:
    tensors = drawn(H, N, F, V, scale=0.5)
    assert_same(kernel(*tensors, tiles=(256, 64, 64, 128)), tensors)


@needs_triton
def test_gradients_are_scaled_head_by_head(kernel: InterpretedKernel) -> None:
    grad_HFV, scale_H = torch.randn(3, 5, 777), torch.tensor([1.0, 0.5, -2.0])
    expected = grad_HFV * scale_H[:, None, None]
    assert torch.equal(kernel.scaled(grad_HFV, scale_H), expected)
    halves = kernel.scaled(grad_HFV.bfloat16(), scale_H.new_ones(1).expand(3))
    assert torch.equal(halves, grad_HFV.bfloat16())


@needs_triton
@pytest.mark.parametrize("start", [0, 10], ids=["the first tile", "a later one"])
@pytest.mark.parametrize("barred", [-1e4, -float("inf")])
def test_barred_tokens_get_no_probability_and_no_gradient(
    kernel: InterpretedKernel, barred: float, start: int
) -> None:
    tensors = drawn()
    tensors[2][:, start:35] = barred  # more than a tile of 16
    tensors[3][(tensors[3] >= start) & (tensors[3] < 35)] = 40
    results = kernel(*tensors)
    exact = list(tensors)
    exact[2] = tensors[2].clamp_min(-1e4)  # the reference weighs every logit, and 0 x inf is not a number
    assert_same(results, tuple(exact))
    assert not results[1][:, :, start:35].any()
    assert not results[2][:, start:35].any()


@needs_triton
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("products", ["bfloat16", "tf32"])
def test_half_precision_costs_what_it_rounds(
    kernel: InterpretedKernel, products: str, dtype: torch.dtype
) -> None:
    tensors = drawn(F=32, scale=0.5)
    halves = *(part.to(dtype) for part in tensors[:3]), *tensors[3:]
    rounded = halves if products == "tf32" else (*(part.bfloat16() for part in halves[:2]), *halves[2:])
    assert_same(kernel(*halves, products=products), rounded, rtol=1e-2, atol=2e-4)


@needs_triton
def test_the_answer_repeats_bit_for_bit(kernel: InterpretedKernel) -> None:
    tensors = drawn(seed=5)
    for first, second in zip(kernel(*tensors), kernel(*tensors), strict=True):
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("loss", "said"), [(math.log(2), None), (0.75, "a trial gave a loss of 0.75, not log 2")]
)
def test_a_trial_is_judged_by_its_loss_and_made_once_for_a_padded_width(
    monkeypatch: pytest.MonkeyPatch, loss: float, said: str | None
) -> None:
    widths = []

    def call(features: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, None, None]:
        widths.append(features.shape[-1])
        return torch.tensor([loss]), None, None

    monkeypatch.setattr(cross_entropy_triton, "scale", lambda *_: None)
    monkeypatch.setattr(cross_entropy_triton, "cross_entropy_and_gradients", call)
    cross_entropy_triton._trial.cache_clear()
    reasons = {cross_entropy_triton.trial(width, torch.device("cpu")) for width in (64, 60, 33)}
    cross_entropy_triton._trial.cache_clear()
    assert widths == [64] and reasons == {said}


def test_why_there_is_no_kernel_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cross_entropy_triton.available() == "PyTorch sees no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "An old one")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert cross_entropy_triton.available() == "An old one has no bfloat16 products"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cross_entropy_triton.available() == "Triton is not installed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert cross_entropy_triton.available(64) is None
    assert cross_entropy_triton.available(768) == "the kernel takes at most 128 features, not 768"


def test_triton_is_not_imported_with_the_module() -> None:
    code = "import sys, alens.fit.objectives.cross_entropy_triton; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def compiled(architectures: str, cache: Path) -> dict[str, Any]:
    script = Path(__file__).parents[3] / "benchmarks/compiled_kernels.py"
    command = [sys.executable, script, "--architectures", architectures]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    report: dict[str, Any] = json.loads(subprocess.check_output(command, env=environment))
    return report


@needs_triton
@pytest.mark.slow
def test_an_h100_runs_two_programs_of_each_pass_on_tensor_cores_without_spilling(tmp_path: Path) -> None:
    report = compiled("90", tmp_path)
    kernels = report["sm_90"]
    for name, kernel in kernels.items():
        assert kernel["stack"] == 0, name
        assert kernel["matrix_units"] == ("wgmma" if kernel["a_logit"] else None)
        assert kernel["registers"] <= 128, name  # 65,536 of a multiprocessor, 256 threads of a program
        assert kernel["shared"] <= 113 * 1024, name  # half of 227 kB
    assert (
        kernels["logsumexps"]["a_logit"]["exponential"] == kernels["gradients"]["a_logit"]["exponential"] == 1
    )
    assert kernels["logsumexps"]["a_logit"]["all"] < 6  # with a running maximum: 6.9
    steps = report["computed_steps"]
    assert (
        steps["H100 SXM, 144 heads, 8192 rows"]["rows_a_s"]
        > 2e5
        > steps["H100 SXM, 144 heads, 1024 rows"]["rows_a_s"]
    )


@needs_triton
@pytest.mark.slow
def test_no_architecture_spills_or_lacks_shared_memory(tmp_path: Path) -> None:
    report = compiled("80,100,120", tmp_path)
    for name, shared in (("sm_80", 163), ("sm_100", 227), ("sm_120", 99)):
        for kernel in report[name].values():
            assert kernel["stack"] == 0 and kernel["shared"] <= shared * 1024
