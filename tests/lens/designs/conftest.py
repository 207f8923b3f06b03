"""What designs start from: badly scaled values, a mean output, a small unembedding."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from alens.lens.designs.design import Ground
from alens.lens.maps import OLD_NORM
from alens.lens.whitening import Whitening
from alens.rows.final_norm import FinalNorm

H, N, E, D, V = 2, 40, 4, 6, 17

MakeGround = Callable[..., Ground]


@pytest.fixture(scope="session")
def values() -> torch.Tensor:
    """(N, H, E)."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(N, H, E, generator=random) * torch.tensor([3.0, 1.0, 0.3, 0.1]) + 1


@pytest.fixture(scope="session")
def stream() -> torch.Tensor:
    """(N, 1, D): values of a residual site."""
    random = torch.Generator().manual_seed(1)
    return torch.randn(N, 1, D, generator=random) * torch.tensor([5.0, 3.0, 1.0, 0.5, 0.3, 0.1]) - 2


@pytest.fixture
def ground() -> MakeGround:
    """`ground(values, **changed)`: whitening of these values, `W_U` and `b_U` of rank D."""

    def make(z_NHE: torch.Tensor, **changed: Any) -> Ground:
        z_HNE = z_NHE.double().transpose(0, 1).numpy()
        covariance = np.stack([np.cov(z_NE.T, bias=True) for z_NE in z_HNE])
        random = torch.Generator().manual_seed(2)
        W_U_DV, b_U_V = torch.randn(D, V, generator=random), torch.randn(V, generator=random)
        mean_V = (torch.randn(200, D, generator=random) @ W_U_DV + b_U_V).softmax(-1).mean(0)
        given = {
            "whitening": Whitening.from_moments(z_HNE.mean(1), covariance),
            "log_mean_output_V": mean_V.log(),
            "unembedding": lambda: (W_U_DV, b_U_V),
            "final_norm": lambda: FinalNorm.bare(OLD_NORM, D),
        }
        return Ground(**{**given, **changed})

    return make


@pytest.fixture(scope="session")
def disturbed() -> Callable[[torch.nn.Module], None]:
    """Move every parameter, as training would."""

    def disturb(design: torch.nn.Module) -> None:
        random = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in design.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=random)

    return disturb
