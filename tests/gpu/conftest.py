"""The CUDA device of these tests. Where there is none, or it is hidden as `make test` hides it, they are skipped."""

import os

import pytest
import torch

from alens.machine.device import cuda_devices


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The first CUDA device."""
    if not torch.cuda.is_available():
        hidden = "ALENS_TEST_GPU" not in os.environ
        pytest.skip(f"{cuda_devices()}" + (": `make test-gpu` hides no GPU" if hidden else ""))
    return torch.device("cuda", 0)
