"""The causal basis of a lens: the direction whose ablation changes its reading most, then the next at a right angle.

In: a lens, rows of z and their donors (the mean, or other rows), coordinates. Out: (K, E) orthonormal directions,
found in that order. Each is found by L-BFGS on sigma(v), the mean KL of the readings, in the complement of those
before. The search starts at the top eigenvector of the lens's Fisher information F there. To second order in the
change, sigma(v) would be 1/2 E[u^2] v F v if features and readings were independent.
Source: "Eliciting Latent Predictions from Transformers with the Tuned Lens", arXiv 2303.08112, section 4. Its
package starts at singular vectors of the unembedding, and orders directions by influence at the end.
Shapes: N rows, E d_head, V vocabulary, K directions, C directions that are left.
"""

from collections.abc import Callable

import numpy as np
import torch

from alens.machine.blocks import row_blocks
from alens.machine.products import fast_float32
from alens.statistics.bootstrap import Array
from alens.statistics.divergences import gain, kl_of_change
from alens.studies.basis.lens_influence import HeadLens
from alens.studies.basis.subspaces import Coordinates

STEPS = 20
"""Steps of L-BFGS at most."""

TOLERANCE = 1e-3
"""L-BFGS stops when a step gains a smaller share than that."""

STEP = 0.1
"""Step of finite differences, in root mean squares of a feature; they only choose where a search starts."""

NO_INFLUENCE = 1e-9
"""Nats: below, sigma is rounding, and one direction is as good as another."""


class Search:
    """Computes sigma of any direction, and its gradient. Holds the readings of all rows: N x V numbers."""

    @fast_float32()
    def __init__(
        self, lens: HeadLens, z_NE: torch.Tensor, donors_NE: torch.Tensor, coordinates: Coordinates
    ) -> None:
        """`z_NE` and `donors_NE` are float32 (N, E), on the lens's device."""
        self.lens, self.z_NE = lens, z_NE
        into_EE, back_EE = (m.to(z_NE) for m in (coordinates.into_EE, coordinates.back_EE))
        self.away_NE = (donors_NE - z_NE) @ into_EE
        self.back_EE = back_EE
        with torch.inference_mode():
            self.p_NV = torch.cat([lens.logits(z_NE[rows]).softmax(-1) for rows in self._blocks()])
        slopes_EV = self._slopes()
        # a constant on all logits changes no reading: without it, slopes keep their figures in float32
        self.slopes_EV = slopes_EV - (slopes_EV @ self.p_NV.mean(0))[:, None]

    def _slopes(self) -> torch.Tensor:
        """(E, V) slopes of the logits in the coordinates of the search, by finite differences where the lens is not
        affine."""
        if self.lens.weight_EV is not None:
            return self.back_EE @ self.lens.weight_EV
        step = STEP * self.away_NE.square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        moves_EE, mean_1E = step * self.back_EE, self.z_NE.mean(0, keepdim=True)
        with torch.inference_mode():
            return (self.lens.logits(mean_1E + moves_EE) - self.lens.logits(mean_1E - moves_EE)) / (2 * step)

    def _blocks(self) -> list[slice]:
        return list(row_blocks(len(self.z_NE), self.z_NE.device))

    @fast_float32()
    def fisher(self) -> Array:
        """(E, E): mean over rows of the covariance, under the reading, of the slopes of the logits.

        Second moments around the mean slope of all rows, minus those of each row's own mean, in float64.
        """
        expected_NE = torch.cat([self.p_NV[rows] @ self.slopes_EV.T for rows in self._blocks()]).double()
        slopes_EV = self.slopes_EV.double()
        second_EE = (slopes_EV * self.p_NV.mean(0, dtype=torch.float64)) @ slopes_EV.T
        fisher_EE = second_EE - expected_NE.T @ expected_NE / len(expected_NE)
        symmetric_EE: Array = fisher_EE.cpu().numpy()
        return (symmetric_EE + symmetric_EE.T) / 2

    @fast_float32()
    def sigma(self, direction_E: Array) -> tuple[float, Array]:
        """The influence of a unit direction, in nats, and its gradient (E,)."""
        v_E = torch.from_numpy(direction_E).to(self.z_NE)
        total, gradient_E = self._affine(v_E) if self.lens.weight_EV is not None else self._any(v_E)
        return total / len(self.z_NE), gradient_E.double().cpu().numpy() / len(self.z_NE)

    def _affine(self, v_E: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The change of all logits is an outer product, rows by vocabulary; the gradient needs q - p in sums only."""
        away_N, slope_V = self.away_NE @ v_E, v_E @ self.slopes_EV
        total, by_slope_V, by_away_N = 0.0, torch.zeros_like(slope_V), torch.empty_like(away_N)
        for rows in self._blocks():
            p_BV, away_B = self.p_NV[rows], away_N[rows]
            slope_B = p_BV @ slope_V
            gain_BV, gain_B, large_B = gain(p_BV, away_B[:, None] * slope_V, away_B * slope_B)
            if bool(large_B.any()):
                return self._any(v_E)
            total += float(torch.log1p(gain_B).double().sum())
            weight_B = away_B / (1 + gain_B)
            by_slope_V += weight_B @ gain_BV - (weight_B * gain_B) @ p_BV
            by_away_N[rows] = (gain_BV @ slope_V - gain_B * slope_B) / (1 + gain_B)
        return total, self.slopes_EV @ by_slope_V + by_away_N @ self.away_NE

    def _any(self, v_E: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The same by autograd, for lenses that are not affine and changes that are too large for `gain`."""
        v_E = v_E.clone().requires_grad_()
        total, gradient_E = 0.0, torch.zeros_like(v_E)
        for rows in self._blocks():
            moves_BE = (self.away_NE[rows] @ v_E)[:, None] * (v_E @ self.back_EE)
            change_BV = self.lens.change(self.z_NE[rows], moves_BE)
            with torch.no_grad():
                log_p_BV = self.lens.logits(self.z_NE[rows]).log_softmax(-1)
                total += float(kl_of_change(self.p_NV[rows], log_p_BV, change_BV).double().sum())
                moved_BV = (log_p_BV + change_BV).softmax(-1) - self.p_NV[rows]
            (part_E,) = torch.autograd.grad((moved_BV * change_BV).sum(), v_E)
            gradient_E += part_E
        return total, gradient_E


def find_basis(search: Search, count: int, after_each: Callable[[], None] = lambda: None) -> torch.Tensor:
    """(K, E) float64 orthonormal directions, in the order they were found; `after_each` is called after each."""
    fisher_EE = search.fisher()
    width = len(fisher_EE)
    basis_KE = np.empty((0, width))
    for number in range(count):
        left_EC = np.linalg.qr(basis_KE.T, mode="complete")[0][:, number:] if number else np.eye(width)
        start_C = np.linalg.eigh(left_EC.T @ fisher_EE @ left_EC)[1][:, -1]
        basis_KE = np.vstack([basis_KE, _climb(search, left_EC, start_C)])
        after_each()
    return torch.from_numpy(basis_KE)


def _climb(search: Search, left_EC: Array, start_C: Array) -> Array:
    """The unit direction of largest sigma that is reached from a start, within the span of `left_EC`."""
    from scipy.optimize import minimize

    start_sigma, _ = search.sigma(left_EC @ start_C)
    if start_sigma < NO_INFLUENCE or len(start_C) == 1:
        start_E: Array = left_EC @ start_C
        return start_E

    def downhill(w_C: Array) -> tuple[float, Array]:
        length = float(np.linalg.norm(w_C))
        unit_C = w_C / length
        sigma, gradient_E = search.sigma(left_EC @ unit_C)
        gradient_C = left_EC.T @ gradient_E
        along_C = gradient_C - unit_C * (unit_C @ gradient_C)  # the part that does not change w's length
        return -sigma / start_sigma, -along_C / (length * start_sigma)

    done = minimize(
        downhill, start_C, jac=True, method="L-BFGS-B", options={"maxiter": STEPS, "ftol": TOLERANCE}
    )
    best_E: Array = left_EC @ (done.x / np.linalg.norm(done.x))
    return best_E
