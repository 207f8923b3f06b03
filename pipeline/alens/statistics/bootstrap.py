"""Bootstrap over groups of rows: rows of one document are alike, so whole documents are drawn (`groups`).

In: for each group, sums of some figures over its rows, and how many rows it has. Out: the mean of each figure in
each of R resamples, and percentile intervals of any figure that is made from them. A resample depends on its number, the
seed and the number of groups alone, so figures of two readings of the same rows are paired.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
Shapes: G groups, F figures, R resamples.
"""

import numpy as np
import numpy.typing as npt

from alens import randomness

RESAMPLES = 2000
LEVEL = 0.95
DRAWS_AT_ONCE = 2**22
"""Group numbers that are in memory at once: 32 MB, and as much for their counts."""

Array = npt.NDArray[np.float64]


def counts(first: int, num_resamples: int, num_groups: int, seed: int) -> Array:
    """(R, G): how often each group is drawn in resamples `first`, `first + 1`, ...; each row sums to G."""
    uniforms_RG = randomness.row_uniforms(first, num_resamples, num_groups, seed, randomness.BOOTSTRAP)
    drawn_RG = (uniforms_RG * num_groups).astype(np.int64)
    places = drawn_RG + np.arange(num_resamples)[:, None] * num_groups
    counted = np.bincount(places.ravel(), minlength=num_resamples * num_groups)
    return counted.reshape(num_resamples, num_groups).astype(np.float64)


def resampled_means(sums_GF: Array, rows_G: Array, *, seed: int, resamples: int = RESAMPLES) -> Array:
    """(R, F): the mean over rows of each figure, in each resample of groups."""
    means_RF = np.empty((resamples, sums_GF.shape[1]))
    size = max(1, DRAWS_AT_ONCE // len(rows_G))
    for first in range(0, resamples, size):
        counts_RG = counts(first, min(size, resamples - first), len(rows_G), seed)
        means_RF[first : first + size] = (counts_RG @ sums_GF) / (counts_RG @ rows_G)[:, None]
    return means_RF


def interval(values_R: Array, level: float = LEVEL, *, groups: int | None = None) -> tuple[float, float]:
    """The percentile interval of a figure from its resampled values.

    With the number of `groups`, the interval is widened for few groups: the percentiles are those at which a normal
    figure would have Student's interval (the expanded percentiles of Hesterberg 2015, "What teachers should know about
    the bootstrap").
    """
    outside = (1.0 - level) / 2.0
    if groups is not None:
        outside = _expanded(outside, groups)
    low, high = np.quantile(values_R, (outside, 1.0 - outside))
    return float(low), float(high)


def _expanded(outside: float, groups: int) -> float:
    from scipy import special  # scipy.stats has the same functions, and takes 0.4 s more

    reach = special.stdtrit(groups - 1, 1.0 - outside) * np.sqrt(groups / (groups - 1))
    return float(special.ndtr(-reach))


def mean_intervals(
    sums_GF: Array, rows_G: Array, *, seed: int, resamples: int = RESAMPLES
) -> list[tuple[float, float] | None]:
    """The interval of each of F figures, means over rows; all None with fewer than two groups that have rows."""
    kept = rows_G > 0
    if kept.sum() < 2:
        return [None] * sums_GF.shape[1]
    means_RF = resampled_means(sums_GF[kept], rows_G[kept], seed=seed, resamples=resamples)
    groups = int(kept.sum())
    return [interval(means_R, groups=groups) for means_R in means_RF.T]


def finite_interval(values_R: Array, *, groups: int) -> tuple[float, float] | None:
    """The interval from the resamples in which the figure exists; None where it exists in none."""
    finite_R = values_R[np.isfinite(values_R)]
    return interval(finite_R, groups=groups) if len(finite_R) else None
