"""The effect of a head as a linear map of its z: ridge regression, in closed form, from moments of groups of rows.

In: z around its mean and the measured effect on the same rows, by document; the direct write as a map of z; the metric of
logits. Out: the map, (E, D), whose penalty holds it near the direct write and not near zero: a head of a late layer does
little else, and where an effect is small, rows are too few to tell more. How hard it holds is chosen by leaving out
documents ("Ridge regression", Hoerl and Kennard 1970, towards a point other than zero). docs/decisions/0055 has the
measurement.
Shapes: N rows, G groups, E d_head, D d_model.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RIDGES = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Penalties that are tried, as shares of the mean variance of z along its axes."""

FOLDS = 8
"""Groups of documents that are left out, one after the other."""


@dataclass(frozen=True, kw_only=True)
class EffectMoments:
    """Sums over the rows of each group."""

    rows_G: Array
    outer_GEE: Array
    """Products of z, around its mean, with itself."""
    cross_GED: Array
    """Products of z with the effect."""
    squares_G: Array
    """Squares of the effect in logits, centred over the vocabulary."""

    @classmethod
    def of_rows(
        cls, x_NE: Array, effect_ND: npt.NDArray[np.float32], group_N: npt.NDArray[np.int64], metric_DD: Array
    ) -> "EffectMoments":
        """The sums of rows, one group after the other."""
        groups = [np.flatnonzero(group_N == group) for group in np.unique(group_N)]
        return cls(
            rows_G=np.array([len(rows) for rows in groups], dtype=np.float64),
            outer_GEE=np.stack([x_NE[rows].T @ x_NE[rows] for rows in groups]),
            cross_GED=np.stack([x_NE[rows].T @ effect_ND[rows].astype(np.float64) for rows in groups]),
            squares_G=np.array([squared(effect_ND[rows], metric_DD) for rows in groups]),
        )

    def select(self, groups: npt.NDArray[np.bool_]) -> "EffectMoments":
        """Only these groups."""
        return EffectMoments(
            rows_G=self.rows_G[groups],
            outer_GEE=self.outer_GEE[groups],
            cross_GED=self.cross_GED[groups],
            squares_G=self.squares_G[groups],
        )

    def left_G(self, map_ED: Array, metric_DD: Array) -> Array:
        """(G,) the squares, in logits, of what a map of z leaves of the effect."""
        weighed_ED = map_ED @ metric_DD
        both_G = np.einsum("ged,ed->g", self.cross_GED, weighed_ED)
        own_G = np.einsum("gef,fd,ed->g", self.outer_GEE, weighed_ED, map_ED, optimize=True)
        left_G: Array = np.maximum(self.squares_G - 2 * both_G + own_G, 0.0)
        return left_G


def logit_metric(W_U_DV: npt.NDArray[np.float32]) -> Array:
    """(D, D): the inner product of two changes of the final residual, in their logits centred over the vocabulary."""
    around_DV = W_U_DV - W_U_DV.mean(1, keepdims=True)
    metric_DD: Array = (around_DV @ around_DV.T).astype(np.float64)
    return metric_DD


def squared(change_ND: npt.NDArray[np.floating], metric_DD: Array) -> float:
    """The squares of these changes of the final residual in logits, summed over rows and vocabulary."""
    return float(np.einsum("nd,nd->", change_ND @ metric_DD, change_ND))


def regress_effect(moments: EffectMoments, towards_ED: Array, metric_DD: Array) -> tuple[Array, float]:
    """The map, (E, D), and the penalty that was chosen. `towards_ED` is the direct write as a map of z; the map is held near
    the multiple of it that fits best."""
    near_ED = towards_ED * _scale(moments, towards_ED, metric_DD)
    fold_G = np.arange(len(moments.rows_G)) % min(FOLDS, len(moments.rows_G))
    folds = range(int(fold_G.max()) + 1)
    if len(folds) < 2:
        return _solve(moments, near_ED, RIDGES[-1]), RIDGES[-1]
    left = [
        sum(
            moments.select(fold_G == fold)
            .left_G(_solve(moments.select(fold_G != fold), near_ED, ridge), metric_DD)
            .sum()
            for fold in folds
        )
        for ridge in RIDGES
    ]
    ridge = RIDGES[int(np.argmin(left))]
    return _solve(moments, near_ED, ridge), ridge


def _scale(moments: EffectMoments, map_ED: Array, metric_DD: Array) -> float:
    """The factor with which a map explains most of the effect."""
    weighed_ED = map_ED @ metric_DD
    own = float(np.einsum("ef,fd,ed->", moments.outer_GEE.sum(0), weighed_ED, map_ED, optimize=True))
    return float((moments.cross_GED.sum(0) * weighed_ED).sum()) / own if own > 0 else 0.0


def _solve(moments: EffectMoments, near_ED: Array, ridge: float) -> Array:
    outer_EE, cross_ED = moments.outer_GEE.sum(0), moments.cross_GED.sum(0)
    width = len(outer_EE)
    penalty = ridge * np.trace(outer_EE) / width + np.finfo(np.float32).tiny
    moved_ED: Array = np.linalg.solve(outer_EE + penalty * np.eye(width), cross_ED - outer_EE @ near_ED)
    return near_ED + moved_ED
