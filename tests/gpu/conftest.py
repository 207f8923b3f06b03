"""The device of these tests: a GPU. Where there is none, or it is hidden as `make test` hides it, they are skipped.

`make test-gpu DEVICE=cpu` rehearses them: their bodies run on the CPU, the kernels in Triton's interpreter, and only what
asks CUDA itself is skipped. So a test that no machine here can run is not a text that was never run.
"""

import os

import pytest
import torch

from alens.machine.device import cuda_devices

REHEARSED = os.environ.get("ALENS_TEST_DEVICE") == "cpu"

if REHEARSED:
    os.environ["TRITON_INTERPRET"] = "1"  # Triton keeps what it reads when it is imported


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The first CUDA device; in a rehearsal the CPU."""
    if REHEARSED:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        hidden = "ALENS_TEST_GPU" not in os.environ
        pytest.skip(f"{cuda_devices()}" + (": `make test-gpu` hides no GPU" if hidden else ""))
    return torch.device("cuda", 0)


@pytest.fixture
def cuda(gpu: torch.device) -> torch.device:
    """The same for a test that asks CUDA itself."""
    if gpu.type != "cuda":
        pytest.skip("a rehearsal on the CPU cannot ask CUDA")
    return gpu


@pytest.fixture(scope="session")
def kernels(gpu: torch.device) -> torch.device:
    """The device that the Triton kernels take."""
    if REHEARSED:
        from ..fit.objectives.interpreted_kernel import widen_bfloat16_products

        widen_bfloat16_products()
    return gpu
