"""Moments that stage one counts shard by shard: of z, and of the model's output.

In: sums over rows, as shards hold them. Out: `Statistics`, and the log of the mean output that lenses start from and
are compared with.
Shapes: L layers, H heads, E d_head, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

ENOUGH_SHARDS = 256
"""Moments of so many shards are enough for any use of them, and bound what is read before the work."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Moments over the rows at position 1 and later of some shards."""

    num_rows: int
    mean_LHE: npt.NDArray[np.float64]
    covariance_LHEE: npt.NDArray[np.float64]
    mean_output_V: npt.NDArray[np.float64]
    """The mean of the model's final distributions; sums to 1."""


def log_shares(output_V: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(V,) log of each token's share of summed distributions.

    A token that never had probability gets the smallest that float32 knows.
    """
    shares_V = output_V / output_V.sum()
    found_V: npt.NDArray[np.float32] = np.log(np.maximum(shares_V, np.finfo(np.float32).tiny)).astype(
        np.float32
    )
    return found_V
