"""Sums from which means and covariances are made, a batch of rows at a time.

In: z of the heads of a layer, and the final residual of the same rows. Out: sums, means and covariances as float64
tensors. Stage one adds up whole sequences; stage two, where a cache keeps no such sums, rows.
Shapes: N rows, B sequences of T tokens, H heads, E width of the values, F = H E, D d_model.
"""

import torch

from alens.machine.device import send


class CentredSum:
    """A sum over rows, a batch at a time: float32 around the mean of the first batch, float64 in all.

    Around zero, float32 loses the spread of values whose mean is far above it: the covariance of a head with a mean of
    300 had negative eigenvalues.
    """

    def __init__(self, *shape: int, device: torch.device, seq_len: int | None = None) -> None:
        """With `seq_len`, batches are whole sequences in order, and rows at position 0 do not count."""
        self.T, self.device, self.rows = seq_len, device, 0
        self.shift: torch.Tensor | None = None
        self.sum = torch.zeros(*shape, dtype=torch.float64, device=device)

    def add(self, values_N: torch.Tensor) -> torch.Tensor:
        """(N, ...) float32: the values around the shift; 0 in rows that do not count."""
        values_N = send(values_N, self.device).to(torch.float32, copy=True)  # encoded z comes from the CPU
        values_BT = values_N[:, None] if self.T is None else values_N.unflatten(0, (-1, self.T))
        first = 0 if self.T is None else 1
        rows = len(values_BT) * (values_BT.shape[1] - first)
        if self.shift is None:
            self.shift = values_BT[:, first:].sum((0, 1)) / max(1, rows)
        values_N -= self.shift
        values_BT[:, :first] = 0.0
        self.sum += values_N.sum(0)
        self.rows += rows
        return values_N

    @property
    def mean(self) -> torch.Tensor:
        """(...) float64: the mean of the values as they are."""
        return self.sum / max(1, self.rows) + (0.0 if self.shift is None else self.shift.double())


class FinalSums:
    """Sums of the final residual over the rows at position 1 and later, a batch at a time."""

    def __init__(self, d_model: int, device: torch.device, seq_len: int | None = None) -> None:
        """`seq_len` as in `CentredSum`."""
        self._final = CentredSum(d_model, device=device, seq_len=seq_len)
        self._squares_D = torch.zeros(d_model, dtype=torch.float64, device=device)

    def add(self, final_ND: torch.Tensor) -> torch.Tensor:
        """(N, D) float32: what `MomentSums.add` takes beside z of the same rows."""
        centred_ND = self._final.add(final_ND)
        self._squares_D += centred_ND.square().sum(0)
        return centred_ND

    @property
    def rows(self) -> int:
        """How many rows count."""
        return self._final.rows

    @property
    def mean_D(self) -> torch.Tensor:
        """(D,) float64."""
        return self._final.mean

    @property
    def around_D(self) -> torch.Tensor:
        """(D,) float64: the mean of what `add` gave."""
        return self._final.sum / max(1, self._final.rows)

    @property
    def variance_D(self) -> torch.Tensor:
        """(D,) float64."""
        return self._squares_D / max(1, self._final.rows) - self.around_D.square()


class MomentSums:
    """Sums of z over the rows at position 1 and later, a batch at a time; with `d_model`, also with the final residual."""

    def __init__(
        self,
        num_heads: int,
        width: int,
        seq_len: int | None,
        device: torch.device,
        d_model: int | None = None,
    ) -> None:
        """`seq_len` as in `CentredSum`."""
        self._z = CentredSum(num_heads, width, device=device, seq_len=seq_len)
        self.outer_HEE = torch.zeros(num_heads, width, width, dtype=torch.float64, device=device)
        self.cross_FD = torch.zeros(num_heads * width, d_model or 0, dtype=torch.float64, device=device)

    def add(self, z_NHE: torch.Tensor, final_ND: torch.Tensor | None = None) -> None:
        """`final_ND` is what `FinalSums.add` gave for the same rows."""
        z_NHE = self._z.add(z_NHE)
        z_HNE = z_NHE.transpose(0, 1)
        self.outer_HEE += torch.bmm(z_HNE.transpose(1, 2), z_HNE)
        if final_ND is not None:
            self.cross_FD += z_NHE.flatten(1).T @ send(final_ND, z_NHE.device)

    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E) sum and (H, E, E) sum of outer products, of z as it is; float64."""
        sum_HE, rows, shift = self._z.sum, self._z.rows, self._z.shift
        if shift is None:
            return sum_HE, self.outer_HEE
        shift_HE = shift.double()
        cross_HEE = shift_HE[:, :, None] * (sum_HE + rows * shift_HE / 2)[:, None, :]
        return sum_HE + rows * shift_HE, self.outer_HEE + cross_HEE + cross_HEE.mT

    def covariance(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, E) mean and (H, E, E) covariance of z; float64."""
        around_HE = self._z.sum / max(1, self._z.rows)
        spread_HEE = self.outer_HEE / max(1, self._z.rows)
        return self._z.mean, spread_HEE - around_HE[:, :, None] * around_HE[:, None, :]

    def cross(self, final: FinalSums) -> torch.Tensor:
        """(H, E, D) float64: the covariance of z with the final residual, of the rows that `final` summed."""
        around_HE = self._z.sum / max(1, self._z.rows)
        cross_HED: torch.Tensor = self.cross_FD.view(*around_HE.shape, -1) / max(1, self._z.rows)
        return cross_HED - around_HE[:, :, None] * final.around_D
