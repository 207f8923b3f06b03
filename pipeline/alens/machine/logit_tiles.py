"""The logits of an affine map, a tile of rows and tokens at a time, in memory that every tile uses again.

In: features of some rows, and a map to the vocabulary. Out: tiles of logits in bits, which the next one overwrites. A tile
stays in the processor's cache (docs/decisions/0015). Logits are in bits because torch's `exp2` on a CPU is four times as
fast as its `exp`. The bias and a shift for each row are two more features, so that the product gives logits that are ready
for it.
Shapes: N rows, F features, A = F + 2, V vocabulary; in a tile R rows, C tokens.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from alens.job.interruption import leave_out

BITS = 1.0 / math.log(2.0)
"""Bits in a nat."""


class LogitTile(NamedTuple):
    """Some rows' logits of some tokens."""

    rows: slice
    columns: slice
    map_AC: torch.Tensor
    """The map to these tokens, with the rows of the bias and of the shift."""
    logits_RC: torch.Tensor


class LogitTiles:
    """The tiles of one map, columns of tiles one after the other."""

    def __init__(
        self, rows: Sequence[slice], columns: Sequence[slice], features: int, device: torch.device
    ) -> None:
        self.rows, self.columns = rows, columns
        # Fresh memory costs a page fault every 4 kB.
        R, C = rows[0].stop, columns[0].stop
        self._map, self._logits = (torch.empty(size * C, device=device) for size in (features + 2, R))

    def through(
        self, x_NA: torch.Tensor, weight_FV: torch.Tensor, bias_V: torch.Tensor
    ) -> Iterator[LogitTile]:
        """Each tile with its logits, up to where work is to be left out; the next one overwrites them.

        `x_NA` is what `in_bits` gives; its last column, the shift, may change between two tiles.
        """
        for columns in self.columns:
            if leave_out():
                return
            A, C = x_NA.shape[1], columns.stop - columns.start
            map_AC = self._map[: A * C].view(A, C)
            map_AC[:-2], map_AC[-2], map_AC[-1] = weight_FV[:, columns], bias_V[columns], 1.0
            for rows in self.rows:
                R = rows.stop - rows.start
                logits_RC = torch.mm(x_NA[rows], map_AC, out=self._logits[: R * C].view(R, C))
                yield LogitTile(rows, columns, map_AC, logits_RC)


def in_bits(features_NF: torch.Tensor) -> torch.Tensor:
    """(N, A) float32: the features with those of the bias and of a shift of 0."""
    ones_N1 = features_NF.new_ones(len(features_NF), 1)
    return torch.cat([features_NF * BITS, ones_N1 * BITS, ones_N1 * 0.0], dim=1)
