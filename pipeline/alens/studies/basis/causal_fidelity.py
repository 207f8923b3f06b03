"""Causal fidelity: whether a lens ranks directions by influence as the model does.

In: for each sequence, sums over its rows of the influence of each direction on the lens and on the model. Out:
Spearman's rank correlation of the mean influences, its p-value against random pairing, and an interval; figures of a
basis and of a layer. For intervals sequences are drawn again, the same ones for lens and model; the directions are
kept.
Shapes: A ablations (all of z, each direction, the first directions together), S sequences, K directions, F figures,
R resamples.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alens import randomness
from alens.statistics import bootstrap
from alens.statistics.bootstrap import Array
from alens.studies.basis.result import BasisFidelity, HeadBases, LayerFidelity, RankCorrelation

PAIRINGS = 9999
"""Pairings that are drawn at random, where there are more."""

TIE = 1e-9
"""How far rounding may move equal correlations apart."""

MOST = 1 - 1e-9
"""The largest correlation that is taken to Fisher's scale, where 1 is infinity."""


def basis_fidelity(
    basis: str,
    lens_AS: Array,
    model_AS: Array,
    *,
    positions: int,
    groups_S: npt.NDArray[np.int64],
    seed: int,
) -> tuple[BasisFidelity, Array]:
    """Figures of a basis, and the resampled correlation (R,).

    Inputs are sums over the `positions` rows of a sequence; their ablations are all of z, each direction, and the first
    directions together. `groups_S` says which sequences are drawn together.
    """
    rows_S = np.full(lens_AS.shape[1], float(positions))
    member_GS = (groups_S == np.arange(groups_S.max() + 1)[:, None]).astype(np.float64)
    correlation, drawn_R = rank_correlation(
        member_GS @ lens_AS[1:-1].T, member_GS @ model_AS[1:-1].T, member_GS @ rows_S, seed=seed
    )
    lens_A, model_A = (sums_AS.sum(1) / rows_S.sum() for sums_AS in (lens_AS, model_AS))
    return BasisFidelity(
        basis=basis,
        correlation=correlation,
        lens_influence=lens_A[1:-1].tolist(),
        model_influence=model_A[1:-1].tolist(),
        lens_whole=float(lens_A[0]),
        model_whole=float(model_A[0]),
        lens_first=float(lens_A[-1]),
        model_first=float(model_A[-1]),
    ), drawn_R


def layer_fidelity(layer: int, heads: Sequence[HeadBases]) -> list[LayerFidelity]:
    """The figures of a layer, for each basis of its heads."""
    sets = [one for head in heads if head.layer == layer for one in head.bases]
    by_basis = []
    for name in dict.fromkeys(one.fidelity.basis for one in sets):
        mine = [one for one in sets if one.fidelity.basis == name]
        rhos = [rho for one in mine if (rho := one.fidelity.correlation.rho) is not None]
        drawn_HR = [one.drawn_R for one in mine if one.fidelity.correlation.rho is not None]
        shares = [share for one in mine if (share := one.fidelity.model_share) is not None]
        by_basis.append(
            LayerFidelity(
                layer=layer,
                basis=name,
                heads=len(rhos),
                rho=float(np.mean(rhos)) if rhos else None,
                interval=basic_interval(float(np.mean(rhos)), np.mean(drawn_HR, axis=0)) if rhos else None,
                lowest=min(rhos, default=None),
                highest=max(rhos, default=None),
                model_share=float(np.mean(shares)) if shares else None,
            )
        )
    return by_basis


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
    """The share of pairings whose correlation is as far from 0 as the observed one.

    All pairings are taken, or the observed one and `PAIRINGS` that are drawn.
    """
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
    rho is too high, and resampled ones are higher by about as much again. The basic interval takes that off; intervals
    by percentiles held the truth half as often (docs/tutorials/basis.md).
    """
    drawn_R = drawn_R[np.isfinite(drawn_R)]
    if not len(drawn_R):
        return None
    centre, low, high = np.arctanh(np.clip((rho, *bootstrap.interval(drawn_R)), -MOST, MOST))
    return float(np.tanh(2 * centre - high)), float(np.tanh(2 * centre - low))


def _spearman(lens_RK: Array, model_RK: Array) -> Array:
    """(R,) the correlation of ranks (Pearson's), row by row."""
    from scipy.stats import rankdata

    x_RK, y_RK = (rankdata(values, axis=1) for values in (lens_RK, model_RK))
    x_RK, y_RK = (ranks - ranks.mean(1, keepdims=True) for ranks in (x_RK, y_RK))
    scale_R = np.sqrt((x_RK**2).sum(1) * (y_RK**2).sum(1))
    rho_R: Array = np.divide(
        (x_RK * y_RK).sum(1), scale_R, out=np.full(len(scale_R), np.nan), where=scale_R > 0
    )
    return rho_R
