"""Causal fidelity: whether a lens ranks directions by influence as the model does.

In: for each sequence, sums over its rows of the influence of each direction on the lens and on the model. Out:
Spearman's rank correlation of the mean influences, its p value against random pairing, and an interval: sequences
are drawn again, the same ones for lens and model; the directions are kept.
Shapes: S sequences, K directions, R resamples.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.statistics import bootstrap

Array = npt.NDArray[np.float64]

PAIRINGS = 9999
"""Drawn at random, where there are more."""

TIE = 1e-9
"""What rounding may take equal correlations apart."""

MOST = 1 - 1e-9
"""Of a correlation on Fisher's scale, where 1 is infinity."""


@dataclass(frozen=True, kw_only=True)
class RankCorrelation:
    """Of the influences of K directions on a lens and on the model."""

    rho: float | None
    """Spearman's; None where all influences of one side are equal."""
    p_value: float | None
    """Two-sided: how often random pairing gives as much, the observed one counted, so never 0. Directions are not
    independent draws, so take the random directions beside it for the null."""
    interval: tuple[float, float] | None
    """95 %, by drawing sequences; `basic_interval`."""


def rank_correlation(
    lens_SK: Array, model_SK: Array, rows_S: Array, *, seed: int
) -> tuple[RankCorrelation, Array]:
    """The correlation of mean influences, and its value in each resample (R,), NaN where it does not exist."""
    K = lens_SK.shape[1]
    lens_K, model_K = lens_SK.sum(0), model_SK.sum(0)
    means_RF = bootstrap.resampled_means(np.hstack([lens_SK, model_SK]), rows_S, seed=seed)
    drawn_R = _spearman(means_RF[:, :K], means_RF[:, K:])
    if np.ptp(lens_K) == 0 or np.ptp(model_K) == 0:
        return RankCorrelation(rho=None, p_value=None, interval=None), drawn_R
    rho = float(_spearman(lens_K[None], model_K[None])[0])
    p_value = paired_at_random(lens_K, model_K, seed)
    return RankCorrelation(rho=rho, p_value=p_value, interval=basic_interval(rho, drawn_R)), drawn_R


def paired_at_random(lens_K: Array, model_K: Array, seed: int) -> float:
    """The share of pairings whose correlation is as far from 0: of all of them, or of the observed and `PAIRINGS`."""
    K = len(lens_K)
    if math.factorial(K) <= PAIRINGS:
        orders_RK = np.array(list(itertools.permutations(range(K))))
    else:
        draws = randomness.generator(seed, randomness.PAIRINGS).random((PAIRINGS, K))
        orders_RK = np.concatenate([np.arange(K)[None], draws.argsort(axis=1)])
    rho_R = np.abs(_spearman(np.broadcast_to(lens_K, orders_RK.shape), model_K[orders_RK]))
    return float((rho_R >= rho_R[0] - TIE).mean())


def basic_interval(rho: float, drawn_R: Array) -> tuple[float, float] | None:
    """The basic bootstrap interval of a correlation, on Fisher's scale; None where no resample has one.

    Lens and model are measured on the same rows, and what is large in a few rows is large for both: on few sequences
    rho is too high, and drawn ones higher by about as much again. The basic interval takes that off; percentiles
    held the truth half as often (docs/tutorials/basis.md).
    """
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    if not len(drawn_R):
        return None
    centre, low, high = np.arctanh(np.clip((rho, *bootstrap.interval(drawn_R)), -MOST, MOST))
    return float(np.tanh(2 * centre - high)), float(np.tanh(2 * centre - low))


def _spearman(lens_RK: Array, model_RK: Array) -> Array:
    """(R,) row by row: Pearson's correlation of ranks."""
    from scipy.stats import rankdata

    x_RK, y_RK = (rankdata(values, axis=1) for values in (lens_RK, model_RK))
    x_RK, y_RK = (ranks - ranks.mean(1, keepdims=True) for ranks in (x_RK, y_RK))
    scale_R = np.sqrt((x_RK**2).sum(1) * (y_RK**2).sum(1))
    found: Array = np.divide(
        (x_RK * y_RK).sum(1), scale_R, out=np.full(len(scale_R), np.nan), where=scale_R > 0
    )
    return found
