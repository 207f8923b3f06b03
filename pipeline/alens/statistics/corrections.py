"""p-values corrected for the number of heads that were looked at.

In: p-values of F heads, or a statistic of each head, observed and in R draws of chance. Out: corrected p-values. `max-t`
is the step-down method of Westfall and Young, "Resampling-based multiple testing" (1993), chapter 2. It accounts for
heads that are alike, because a draw is the same for all heads.
Shapes: F heads, R draws (the observed one first).
"""

import numpy as np
import numpy.typing as npt

from alens.errors import RequestError
from alens.statistics.bootstrap import Array

CORRECTIONS = ("max-t", "holm", "bonferroni", "bh", "by", "none")
"""`max-t`, `holm` and `bonferroni` bound the chance of any false head, `bh` and `by` the share of false heads."""


def check_correction(correction: str) -> None:
    """Raises `RequestError` for a name that is not one of `CORRECTIONS`."""
    if correction not in CORRECTIONS:
        raise RequestError(f"correction {correction!r} is unknown: take one of {', '.join(CORRECTIONS)}")


def corrected(p_F: Array, correction: str) -> Array:
    """p-values corrected for their number, by any of `CORRECTIONS` except `max-t`."""
    from scipy.stats import false_discovery_control

    F = len(p_F)
    if correction == "none":
        return p_F
    if correction == "bonferroni":
        return np.minimum(1.0, F * p_F)
    if correction == "holm":
        order = np.argsort(p_F, kind="stable")
        stepped = np.minimum(1.0, np.maximum.accumulate((F - np.arange(F)) * p_F[order]))
        return _back(stepped, order)
    adjusted: Array = false_discovery_control(p_F, method=correction)
    return adjusted


def step_down(size_RF: Array, observed_F: Array) -> Array:
    """(F,) p-values by max-t: each head is held against the largest of itself and all heads with smaller statistics."""
    order = np.argsort(-observed_F, kind="stable")
    largest_RF = np.maximum.accumulate(size_RF[:, order[::-1]], axis=1)[:, ::-1]
    return _back(np.maximum.accumulate((largest_RF >= observed_F[order]).mean(0)), order)


def smallest_corrected(smallest: float, num_heads: int, correction: str) -> float:
    """The smallest corrected p-value that one head could have when no other head shows anything."""
    if correction in ("max-t", "none"):
        return smallest
    factor = float(num_heads)
    if correction == "by":
        factor *= sum(1.0 / rank for rank in range(1, num_heads + 1))
    return min(1.0, smallest * factor)


def _back(sorted_F: Array, order: npt.NDArray[np.intp]) -> Array:
    unsorted_F = np.empty_like(sorted_F)
    unsorted_F[order] = sorted_F
    return unsorted_F
