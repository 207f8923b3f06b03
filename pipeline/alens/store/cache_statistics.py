"""The log of the mean output, which lenses start from and are compared with.

In: the model's distributions, summed over rows as shards hold them. Out: (V,) float32.
Shapes: V vocabulary.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

ENOUGH_SHARDS = 256
"""Moments of so many shards are enough for any use of them, and bound what is read before the work."""


def log_shares(output_V: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(V,) log of each token's share of summed distributions.

    A token that never had probability gets the smallest that float32 knows.
    """
    shares_V = output_V / output_V.sum()
    found_V: npt.NDArray[np.float32] = np.log(np.maximum(shares_V, np.finfo(np.float32).tiny)).astype(
        np.float32
    )
    return found_V
