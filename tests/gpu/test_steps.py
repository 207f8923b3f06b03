"""Steps of a fit on a GPU never wait for it: CUDA is asked to refuse a wait with an error, which fails the test."""

import pytest
import torch

from alens.fit.distributed import join
from alens.fit.engine import Engine
from alens.fit.lens_module import LensModule
from alens.fit.objectives.forward_kl import ForwardKL
from alens.lens.designs.design import Ground
from alens.lens.designs.linear import Linear
from alens.lens.whitening import Whitening
from alens.rows.teacher import CompressedTeacher

pytestmark = pytest.mark.gpu

H, N, E, V, LAYERS = 3, 256, 16, 1001, (0, 2)


def engine(gpu: torch.device) -> Engine:
    unit = Whitening(mean_HE=torch.zeros(H, E), scale_HEE=torch.eye(E).expand(H, E, E).clone()).to(gpu)
    ground = Ground(whitening=unit, log_mean_output_V=torch.full((V,), 1 / V, device=gpu).log())
    module = LensModule({layer: Linear(ground) for layer in LAYERS}, ForwardKL())
    made = Engine(module, join(gpu.type), zero=0, batch_rows=N, lr=0.1)
    made.start()
    return made


def batch(gpu: torch.device) -> tuple[dict[int, torch.Tensor], CompressedTeacher]:
    random = torch.Generator().manual_seed(0)
    ids_NJ, weights_NJ = (
        torch.randint(0, V, (N, 8), generator=random),
        torch.rand(N, 8, generator=random).softmax(-1),
    )
    z_NHE = {layer: torch.randn(N, H, E, generator=random).to(gpu) for layer in LAYERS}
    return z_NHE, CompressedTeacher(ids_NJ.to(gpu), weights_NJ.to(gpu), torch.zeros(N, device=gpu))


@pytest.mark.parametrize("active", [None, {0: [0, 2], 2: [1]}])
def test_a_step_does_not_wait_for_the_gpu(gpu: torch.device, active: dict[int, list[int]] | None) -> None:
    made, (z_NHE, teacher) = engine(gpu), batch(gpu)
    for _ in range(2):  # the kernel is built, the optimiser makes its tensors
        made.step(z_NHE, teacher, 0.1, active)
    if gpu.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            made.step(z_NHE, teacher, 0.1, active)
    finally:
        if gpu.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
