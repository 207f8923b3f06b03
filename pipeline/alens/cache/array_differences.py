"""The largest difference of each array, beside the tolerance at its place.

In: differences and tolerances of some rows, array by array. Out: for each array the place that uses most of its
tolerance. A difference that is NaN counts as infinite.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True, kw_only=True)
class ArrayDifference:
    """An array at the place where its difference from the model is the largest share of the tolerance."""

    array: str
    difference: float
    tolerance: float
    row: int | None
    """The row in the arrays; None for weights and for sums over a shard."""
    shard: int | None

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance


class LargestDifferences:
    """Collects differences, and keeps the largest of each array."""

    def __init__(self) -> None:
        self._worst: dict[str, tuple[float, float, float, int | None, int | None]] = {}

    def add(
        self,
        array: str,
        difference: torch.Tensor,
        allowed: torch.Tensor | float,
        row_N: npt.NDArray[np.int64] | None,
        *,
        shard: int | None = None,
    ) -> None:
        """Add the (N, ...) differences of the rows `row_N`; `allowed` has the same shape, or is one number. Sums over a
        shard are (1, ...), with its number in place of rows."""
        flat = torch.nan_to_num(difference.double().reshape(len(difference), -1), nan=math.inf)
        limits = torch.as_tensor(allowed, dtype=torch.float64, device=flat.device)
        limits = limits.expand(difference.shape).reshape(flat.shape)
        used = torch.where(flat > 0, flat / limits, 0.0)  # no difference uses no tolerance, not even one of 0
        at = int(used.argmax())
        share, place = float(used.flatten()[at]), at // flat.shape[1]
        if array not in self._worst or share > self._worst[array][0]:
            row = None if row_N is None else int(row_N[place])
            self._worst[array] = share, float(flat.flatten()[at]), float(limits.flatten()[at]), row, shard

    def by_array(self, rows_per_shard: int) -> tuple[ArrayDifference, ...]:
        """The largest difference of each array, in the order of their names."""
        return tuple(
            ArrayDifference(
                array=array,
                difference=difference,
                tolerance=allowed,
                row=row,
                shard=shard if row is None else row // rows_per_shard,
            )
            for array, (_, difference, allowed, row, shard) in sorted(self._worst.items())
        )
