"""What CUDA computes against float64: the Triton kernel at its real tiles, and the logits of 16-bit models."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alens.fit.objectives import cross_entropy, cross_entropy_triton
from alens.fit.objectives.forward_kl import forward_kl
from alens.machine.products import unembed
from alens.rows.teacher import CompressedTeacher

from ..fit.objectives import dense_reference

pytestmark = pytest.mark.gpu

Record = Callable[[str, object], None]

NEAR = {"bfloat16": 1e-2, "tf32": 2e-3, "ieee": 2e-5}
"""The largest error of a tensor, as a share of its norm: factors keep 8, 11 or 24 bits."""

SHAPES = [
    (1, 33, 64, 1001, 5),
    (17, 65, 5, 301, 4),
    (12, 300, 100, 2003, 16),
    (17, 257, 64, 2049, 8),
    (1, 130, 128, 1001, 8),
    (2, 513, 128, 50257, 64),
]

INTERPRETED = 65
"""The most tokens in the interpreter, where a program takes milliseconds."""


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


def dense(tensors: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """Loss and gradients in float64, head by head."""
    heads = [
        dense_reference.cross_entropy_and_gradients(*(part[h : h + 1] for part in tensors[:3]), *tensors[3:])
        for h in range(len(tensors[0]))
    ]
    return [torch.cat(parts) for parts in zip(*heads, strict=True)]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of lanes that the interpreter masks later
@pytest.mark.parametrize("products", NEAR)
@pytest.mark.parametrize(("H", "N", "F", "V", "J"), SHAPES)
def test_the_kernel_is_near_float64_and_repeats_bit_for_bit(
    kernels: torch.device,
    record_property: Record,
    H: int,
    N: int,
    F: int,
    V: int,
    J: int,
    products: cross_entropy_triton.Products,
) -> None:
    if kernels.type == "cpu":
        N, V = min(N, 33), min(V, INTERPRETED)
    tensors = drawn(H, N, F, V, J, kernels)
    poison = torch.full((2**28 if kernels.type == "cuda" else 2**20,), float("nan"), device=kernels)
    del poison  # so that memory which no program writes shows
    first, second = (
        cross_entropy_triton.cross_entropy_and_gradients(*tensors, products=products) for _ in range(2)
    )
    errors = [
        float((ours.double() - exact).norm() / exact.norm())
        for ours, exact in zip(first, dense(tensors), strict=True)
    ]
    record_property("errors of loss, weight and bias", [float(f"{error:.1e}") for error in errors])
    assert all(torch.equal(ours, again) for ours, again in zip(first, second, strict=True))
    assert max(errors) < NEAR[products]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("nats", [80.0, 200.0], ids=["within float32", "beyond"])
def test_rows_whose_logits_rise_are_summed_with_their_own_maximum(kernels: torch.device, nats: float) -> None:
    N, V = (300, 5003) if kernels.type == "cuda" else (40, 300)
    features, weight, bias, *targets = drawn(2, N, 64, V, 16, kernels)
    bias[1, V // 2 :] += nats
    ours = cross_entropy_triton.cross_entropy_and_gradients(features, weight, bias, *targets, products="tf32")
    exact = dense_reference.cross_entropy_and_gradients(features, weight, bias, *targets)
    for part, wanted in zip(ours, exact, strict=True):
        assert float((part.double() - wanted).norm() / wanted.norm()) < NEAR["tf32"]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_some_heads_are_as_among_all_and_leave_zeros_to_the_others(kernels: torch.device) -> None:
    N, V = (300, 2049) if kernels.type == "cuda" else (40, 150)
    features, weight, bias, *targets = drawn(5, N, 64, V, 8, kernels)
    heads = [4, 0, 1]
    loss_H, *of_all = cross_entropy_triton.cross_entropy_and_gradients(features, weight, bias, *targets)
    loss_U, *of_some = cross_entropy_triton.cross_entropy_and_gradients(
        features[heads], weight, bias, *targets, heads=heads
    )
    torch.testing.assert_close(loss_U, loss_H[heads])
    for some, all_heads in zip(of_some, of_all, strict=True):
        torch.testing.assert_close(some[heads], all_heads[heads])
        assert not some[[2, 3]].any()


def test_gradients_are_scaled_head_by_head(kernels: torch.device) -> None:
    grad_HFV = torch.randn(3, 16, 5003, device=kernels)
    scale_H = torch.tensor([1.0, 0.5, -2.0], device=kernels)
    expected = grad_HFV * scale_H[:, None, None]
    cross_entropy_triton.scale(grad_HFV, scale_H)
    assert torch.equal(grad_HFV, expected)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_the_trial_of_the_kernel_succeeds(kernels: torch.device, width: int) -> None:
    assert cross_entropy_triton.trial(width, kernels) is None


def test_a_fit_on_a_gpu_takes_the_kernel_and_its_loss_is_that_of_the_operations_without_it(
    cuda: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cross_entropy_triton.available(64) is None
    features, weight, bias, ids_NJ, weights_NJ = drawn(3, 200, 64, 1001, 8, cuda)
    teacher = CompressedTeacher(ids_NJ, weights_NJ, torch.zeros(len(ids_NJ), device=cuda))
    leaves = weight.requires_grad_(), bias.requires_grad_()
    assert cross_entropy._triton_kernel(64, cuda) is not None
    both = []
    for kernel in (cross_entropy._triton_kernel, lambda *_: None):
        monkeypatch.setattr(cross_entropy, "_triton_kernel", kernel)
        loss_H = forward_kl(features, *leaves, teacher)
        both.append((loss_H.detach(), *torch.autograd.grad(loss_H.sum(), leaves)))
    for ours, theirs in zip(*both, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < NEAR["bfloat16"]


def test_without_a_compiler_a_fit_takes_the_operations_of_pytorch_and_says_so(
    cuda: torch.device, demo_cache: Path, tmp_path: Path, run_alens_process: Any
) -> None:
    """Triton builds its launcher with a compiler of C. What it built before lies elsewhere."""
    environment = {"CC": "/bin/false", "TRITON_CACHE_DIR": str(tmp_path / "empty")}
    fit = (
        "--layers",
        "2",
        "--steps",
        "2",
        "--eval-rows",
        "1024",
        "--device",
        "cuda",
        "--start",
        "mean-output",
    )
    outcome = run_alens_process("fit", demo_cache, tmp_path / "lenses", *fit, env=environment)
    assert outcome.code == 0, outcome
    assert outcome.stderr.count("no Triton kernel for the loss (Triton cannot build or start it: ") == 1


def test_cuda_after_the_cpu_is_refused_in_one_process(
    cuda: torch.device, demo_cache: Path, tmp_path: Path
) -> None:
    code = "import json, sys; from alens import cli; print(json.dumps([cli.run(a) for a in json.loads(sys.argv[1])]))"
    fit = ["--layers", "2", "--steps", "2", "--eval-rows", "1024", "--start", "mean-output", "--device"]
    runs = [["fit", str(demo_cache), str(tmp_path / device), *fit, device] for device in ("cpu", "cuda")]
    done = subprocess.run([sys.executable, "-c", code, json.dumps(runs)], capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 2], done.stderr
    assert "DeepSpeed works on cpu in this process" in done.stderr


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
