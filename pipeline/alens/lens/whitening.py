"""Coordinates in which fitting is easy: z centred and scaled so that its covariance is the identity.

In: mean and covariance of z (stage one adds them up). Out: `Whitening`, which maps z before the fit and is folded back
into the fitted weights after it, so that a saved lens acts on z as it is.
Shapes: N rows, H heads, E d_head, V vocabulary.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

SMALLEST_RATIO = 1e-6
"""Directions with a variance below this share of the head's largest are scaled as if they had it: float16
rounding is about as large, and should not be blown up."""


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """The whitening of the heads of one layer: `white = (z - mean) scale`."""

    mean_HE: torch.Tensor
    scale_HEE: torch.Tensor

    @classmethod
    def from_moments(cls, mean_HE: npt.NDArray[np.float64], covariance_HEE: npt.NDArray[np.float64]) -> Self:
        """ZCA whitening of each head: the symmetric inverse root of its covariance."""
        variance_HE, basis_HEE = np.linalg.eigh(covariance_HEE)
        floor_H1 = np.maximum(variance_HE[:, -1:] * SMALLEST_RATIO, np.finfo(np.float32).tiny)
        inverse_root_HE = 1.0 / np.sqrt(np.maximum(variance_HE, floor_H1))
        scale = (basis_HEE * inverse_root_HE[:, None, :]) @ basis_HEE.swapaxes(1, 2)
        return cls(
            mean_HE=torch.from_numpy(mean_HE.astype(np.float32)),
            scale_HEE=torch.from_numpy(scale.astype(np.float32)),
        )

    def to(self, device: torch.device) -> "Whitening":
        return Whitening(mean_HE=self.mean_HE.to(device), scale_HEE=self.scale_HEE.to(device))

    def white(self, z_NHE: torch.Tensor) -> torch.Tensor:
        """(H, N, E) float32: z of each head, centred and scaled."""
        centred_HNE = z_NHE.float().transpose(0, 1) - self.mean_HE[:, None]
        return torch.bmm(centred_HNE, self.scale_HEE)

    def fold(self, weight_HEV: torch.Tensor, bias_HV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same map in the coordinates of z: `z W + b` for `white(z) weight + bias`."""
        folded_HEV = torch.bmm(self.scale_HEE, weight_HEV)
        shift_HV = torch.bmm(self.mean_HE[:, None], folded_HEV).squeeze(1)
        return folded_HEV, bias_HV - shift_HV
