"""Moments that stage one counts shard by shard: of z, and of the model's output.

In: sums over rows, as shards hold them. Out: `Statistics`, and the log of the mean output that lenses start from and
are compared with.
Shapes: L layers, H heads, E d_head, V vocabulary.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ENOUGH_SHARDS = 256
"""Moments of so many shards are enough for any use of them, and bound what is read before the work."""


SPREAD_ROUNDING, MEAN_ROUNDING = 1e-6, 1e-12
"""Shares of a head's largest variance and of its squared mean by which rounding may take an eigenvalue below zero."""

log = logging.getLogger("alens")


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Moments over the rows at position 1 and later of some shards."""

    num_rows: int
    mean_LHE: npt.NDArray[np.float64]
    covariance_LHEE: npt.NDArray[np.float64]
    mean_output_V: npt.NDArray[np.float64]
    """The mean of the model's final distributions; sums to 1."""


def warn_of_unsound(
    root: Path, layers: Sequence[int], mean_LHE: npt.NDArray[Any], covariance_LHEE: npt.NDArray[Any]
) -> None:
    """Names heads whose covariance has an eigenvalue below zero by more than rounding.

    Caches of before NUMERICS 3 hold float32 sums around zero, which lose the spread of a head whose mean is far above.
    """
    variance_LHE = np.linalg.eigvalsh(covariance_LHEE)
    rounding_LH = SPREAD_ROUNDING * variance_LHE[..., -1] + MEAN_ROUNDING * np.square(mean_LHE).max(-1)
    wrong = [f"{layers[layer]}.{head}" for layer, head in np.argwhere(variance_LHE[..., 0] < -rounding_LH)]
    if wrong:
        log.warning(
            "%s: the covariance of z is wrong for %s (an older alens summed it in float32, and their mean is far "
            "above their spread): their lenses and bases are wrong too; cache the text again",
            root,
            ", ".join(wrong),
        )


def log_shares(output_V: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """(V,) log of each token's share of summed distributions.

    A token that never had probability gets the smallest that float32 knows.
    """
    shares_V = output_V / output_V.sum()
    found_V: npt.NDArray[np.float32] = np.log(np.maximum(shares_V, np.finfo(np.float32).tiny)).astype(
        np.float32
    )
    return found_V
