"""Directions of a head's z, and how to remove them: coordinates in which directions are orthogonal.

In: mean and covariance of z (stage one counts them), orthonormal directions. Out: the matrix that ablates their
span, and for each direction what reads it from z and what it writes into z. In whitened coordinates
`x = (z - mean) into` a direction v has the feature `u = x v`, and ablating it is `z - u (v back)`: an oblique
projection of z, after which nothing linear of u is left in z. A model does not say what a right angle in z is (any
invertible A in `W_V A`, `A^-1 W_O` leaves it the same), and whitened coordinates do not depend on A. In raw
coordinates both matrices are the identity. docs/decisions/0025 has the reasons.
Shapes: N rows, E d_head, K directions, A ablations.
"""

from dataclasses import dataclass
from typing import Self, get_args

import numpy as np
import numpy.typing as npt
import torch

from alens import randomness
from alens.errors import RequestError
from alens.lens.whitening import SMALLEST_RATIO
from alens.statistics.bootstrap import Array
from alens.studies.basis.settings import CoordinatesKind


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Coordinates of one head: `x = (z - mean) into`, `z = mean + x back`; float64."""

    mean_E: torch.Tensor
    into_EE: torch.Tensor
    back_EE: torch.Tensor
    principal_EE: torch.Tensor
    """Rows: the principal directions of z, largest variance first, orthonormal in z and in these coordinates."""

    @classmethod
    def from_moments(cls, mean_E: Array, covariance_EE: Array, kind: str = "whitened") -> Self:
        """Coordinates from the mean and the covariance of z; `kind` is `whitened` or `raw`.

        Raises `RequestError` for another kind, or for a z that never changes.
        """
        if kind not in get_args(CoordinatesKind):
            raise RequestError(f"coordinates are {kind!r}: give {' or '.join(get_args(CoordinatesKind))}")
        variance_E, basis_EE = torch.linalg.eigh(torch.from_numpy(covariance_EE))
        if not float(variance_E[-1]) > 0:
            raise RequestError("z of a head is the same on every row: it has no directions to compare")
        eye = torch.eye(len(variance_E), dtype=torch.float64)
        root_E = variance_E.clamp_min(float(variance_E[-1]) * SMALLEST_RATIO).sqrt()
        raw = kind == "raw"
        return cls(
            mean_E=torch.from_numpy(mean_E),
            into_EE=eye if raw else (basis_EE / root_E) @ basis_EE.T,
            back_EE=eye if raw else (basis_EE * root_E) @ basis_EE.T,
            principal_EE=basis_EE.T.flip(0),
        )

    def reads(self, directions_KE: torch.Tensor) -> torch.Tensor:
        """(K, E): the feature of direction k is `(z - mean) reads_k`."""
        return directions_KE @ self.into_EE.T

    def writes(self, directions_KE: torch.Tensor) -> torch.Tensor:
        """(K, E): what a unit of the feature is in z; `reads_j writes_k` is 1 for j = k and else 0."""
        return directions_KE @ self.back_EE

    def removal(self, directions_KE: torch.Tensor) -> torch.Tensor:
        """(E, E) R: `z + (donor - z) R` has the donor's features along the directions, and else those of z."""
        return self.reads(directions_KE).T @ self.writes(directions_KE)


def removals(coordinates: Coordinates, subspaces: list[torch.Tensor]) -> torch.Tensor:
    """(A, E, E) float32: the removal of each set of orthonormal directions (K, E)."""
    return torch.stack([coordinates.removal(directions_KE) for directions_KE in subspaces]).float()


def random_directions(count: int, width: int, seed: int, *numbers: int) -> torch.Tensor:
    """(K, E) orthonormal and uniform (Haar): QR of a Gaussian matrix, with the signs of R taken out.

    Each seed, and each of the further numbers (layer, head), gives its own.
    """
    draws = randomness.generator(seed, randomness.RANDOM_BASIS, *numbers)
    gaussian_EE = draws.standard_normal((width, width))
    basis_EE, upper_EE = np.linalg.qr(gaussian_EE)
    return torch.from_numpy((basis_EE * np.sign(np.diag(upper_EE))).T[:count].copy())


def derangement(size: int, seed: int) -> npt.NDArray[np.int64]:
    """(N,) for each row the number of another row, each taken once: one cycle through all rows in a random order.

    Raises `RequestError` for a single row: it has no other.
    """
    if size < 2:
        raise RequestError(
            "a single row has no other row to take values from: give more, or ablate by the mean"
        )
    order_N = randomness.generator(seed, randomness.DONORS).permutation(size)
    donors_N = np.empty(size, dtype=np.int64)
    donors_N[order_N] = np.roll(order_N, 1)
    return donors_N
