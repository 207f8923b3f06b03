"""The t statistics of many heads as chance would make them: with relabelled, flipped or redrawn prompts.

In: scores of P prompts, and of C controls, by F heads. Out: (R, F) t statistics, the observed ones first, so that no
p-value is 0 (Phipson and Smyth 2010, "Permutation P-values should never be zero"). A draw is the same for all heads, so
heads that score alike stay alike. The statistic is Welch's t with two groups, Student's with one.

- `relabelled`: labels are shuffled. Exact where prompts and controls are alike, whatever their distribution. Where a
  small group spreads more than the other, its mean varies more than any relabelling shows.
- `flipped`: each score keeps its distance from its group's mean and may change side (the wild bootstrap: Wu 1986,
  "Jackknife, bootstrap and other resampling methods"; Davidson and Flachaire 2008, for signs). Groups keep their
  spread. It assumes that a distance is as likely on one side as on the other.
- `signed`: one group, such as differences of pairs, whose signs change. Exact where they are symmetric about 0.
- `redrawn`: one group, whose prompts are drawn with replacement (the bootstrap-t: Efron and Tibshirani 1993, chapter
  12). It is for scores with a long tail on one side, such as logarithms of probabilities; with few prompts it has little
  power.

docs/decisions/0034 has the simulations.
Shapes: P prompts of the first group, C of the second, N of both, F heads, R draws.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alens.statistics.bootstrap import Array
from alens.statistics.signs import all_signs, flips

FLOOR = 1e-12
"""Added to squared standard errors, in units of the scores' variance: prompts may score exactly alike."""

REDRAWS = 2
"""Second part of the seed of redraws, as `signs.FLIPS` is for flips; relabellings have the seed alone."""


def relabelled(scores_PF: Array, controls_CF: Array, *, permutations: int, seed: int) -> tuple[Array, bool]:
    """(R, F), and whether all relabellings were taken; where there are more than `permutations`, so many are drawn."""
    P, C = len(scores_PF), len(controls_CF)
    scaled_NF = _scaled(np.concatenate([scores_PF, controls_CF]))
    exact = math.comb(P + C, P) <= permutations + 1
    first_RN = _groups(P, C) if exact else _drawn_groups(P, C, permutations, seed)
    sums_RF, squares_RF = first_RN @ scaled_NF, first_RN @ scaled_NF**2
    first = _mean_and_error(sums_RF, squares_RF, P)
    second = _mean_and_error(scaled_NF.sum(0) - sums_RF, (scaled_NF**2).sum(0) - squares_RF, C)
    return _welch(first, second), exact


def flipped(scores_PF: Array, controls_CF: Array, *, permutations: int, seed: int) -> Array:
    """(R + 1, F): all ways to flip signs where there are at most `permutations`, else as many draws."""
    P, N = len(scores_PF), len(scores_PF) + len(controls_CF)
    scaled_NF = _scaled(np.concatenate([scores_PF, controls_CF]))
    groups = [scaled_NF[:P], scaled_NF[P:]]
    signs_RN = flips(N, permutations, seed)
    parts = []
    for group_PF, signs_RP in zip(groups, (signs_RN[:, :P], signs_RN[:, P:]), strict=True):
        size, apart_PF = len(group_PF), group_PF - group_PF.mean(0)
        observed = _mean_and_error(group_PF.sum(0)[None], (group_PF**2).sum(0), size)
        drawn = _mean_and_error(signs_RP @ apart_PF, (apart_PF**2).sum(0), size)
        parts.append([np.concatenate(pair) for pair in zip(observed, drawn, strict=True)])
    return _welch(*parts)


def signed(differences_PF: Array, *, permutations: int, seed: int) -> tuple[Array, bool]:
    """(R, F), and whether all ways to flip signs were taken."""
    P = len(differences_PF)
    size_F = np.sqrt((differences_PF**2).mean(0))
    scaled_PF = differences_PF / np.where(size_F > 0, size_F, 1.0)
    exact = permutations + 1 >= 2**P
    signs_RP = all_signs(P) if exact else _drawn_signs(P, permutations, seed)
    mean_RF, error_RF = _mean_and_error(signs_RP @ scaled_PF, (scaled_PF**2).sum(0), P)
    return mean_RF / np.sqrt(error_RF + FLOOR), exact


def redrawn(differences_PF: Array, *, permutations: int, seed: int) -> Array:
    """(R + 1, F), from `permutations` draws."""
    P = len(differences_PF)
    size_F = np.sqrt((differences_PF**2).mean(0))
    scaled_PF = differences_PF / np.where(size_F > 0, size_F, 1.0)
    apart_PF = scaled_PF - scaled_PF.mean(0)
    random = np.random.default_rng([seed, REDRAWS])
    counts_RP = random.multinomial(P, np.full(P, 1 / P), size=permutations).astype(np.float64)
    observed = _mean_and_error(scaled_PF.sum(0)[None], (scaled_PF**2).sum(0), P)
    drawn = _mean_and_error(counts_RP @ apart_PF, counts_RP @ apart_PF**2, P)
    mean_RF, error_RF = (np.concatenate(pair) for pair in zip(observed, drawn, strict=True))
    t_RF: Array = mean_RF / np.sqrt(error_RF + FLOOR)
    return t_RF


def _scaled(scores_NF: Array) -> Array:
    """Each head's scores around their mean, in units of their spread; `FLOOR` is in these units."""
    spread_F = scores_NF.std(0)
    scaled_NF: Array = (scores_NF - scores_NF.mean(0)) / np.where(spread_F > 0, spread_F, 1.0)
    return scaled_NF


def _mean_and_error(sums_RF: Array, squares: Array, size: int) -> tuple[Array, Array]:
    """The means of a group and their squared standard errors, from sums and sums of squares."""
    mean_RF = sums_RF / size
    return mean_RF, np.maximum(squares - size * mean_RF**2, 0.0) / (size - 1) / size


def _welch(first: Sequence[Array], second: Sequence[Array]) -> Array:
    (mean_RF, error_RF), (other_RF, other_error_RF) = first, second
    t_RF: Array = (mean_RF - other_RF) / np.sqrt(error_RF + other_error_RF + FLOOR)
    return t_RF


def _groups(P: int, C: int) -> Array:
    """(R, P + C): 1 where a prompt is in the first group, for all ways to divide the prompts."""
    chosen_RP = np.array(list(itertools.combinations(range(P + C), P)))
    return _ones(chosen_RP, P + C)


def _drawn_groups(P: int, C: int, permutations: int, seed: int) -> Array:
    order_RN = np.random.default_rng(seed).random((permutations, P + C)).argsort(1)
    return _ones(np.concatenate([np.arange(P)[None], order_RN[:, :P]]), P + C)


def _ones(chosen_RP: npt.NDArray[np.int64], total: int) -> Array:
    first_RN = np.zeros((len(chosen_RP), total))
    np.put_along_axis(first_RN, chosen_RP, 1.0, axis=1)
    return first_RN


def _drawn_signs(P: int, permutations: int, seed: int) -> Array:
    drawn_RP = np.random.default_rng(seed).choice((1.0, -1.0), size=(permutations, P))
    return np.concatenate([np.ones((1, P)), drawn_RP])
