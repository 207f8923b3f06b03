"""Permutation tests of many heads at once: does one group of prompts score above another, or above zero?

In: scores of P prompts by F heads. Out: `HeadTests`: for each head the difference, a p-value, and a p-value corrected
for having looked at F heads. Relabelling moves whole prompts, so heads that score alike stay alike, and nothing is
assumed about how scores are distributed. All relabellings are taken where they are few, else some are drawn; the
observed one always counts, so that no p is 0 (Phipson and Smyth 2010, "Permutation P-values should never be zero").
The statistic is Welch's t, so that groups may differ in spread (Chung and Romano 2013, "Exact and asymptotically
robust permutation tests"), and heads in scale. `max-t` is the step-down of Westfall and Young, "Resampling-based
multiple testing" (1993), chapter 2.
Shapes: P prompts of the first group, C of the second, F heads, R relabellings (the observed one first).
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alens.errors import RequestError

Array = npt.NDArray[np.float64]

CORRECTIONS = ("max-t", "holm", "bonferroni", "bh", "by", "none")
"""`max-t`, `holm` and `bonferroni` bound the chance of any false head, `bh` and `by` the share of false heads."""

ALTERNATIVES = ("two-sided", "greater")
FEWEST = 2
"""Prompts a group, to have a spread."""

FLOOR = 1e-12
"""Added to squared standard errors, in units of the scores' variance: prompts may score exactly alike."""

TIE = 1e-9
"""Relabellings that give the same sums in another order count as equal."""


@dataclass(frozen=True, kw_only=True)
class HeadTests:
    """One test a head."""

    effect_F: Array
    """Mean of the first group less that of the second, or less zero."""
    p_F: Array
    p_corrected_F: Array
    relabellings: int
    exact: bool
    """All relabellings were taken, not drawn."""


def two_groups(
    scores_PF: Array,
    controls_CF: Array,
    *,
    correction: str,
    alternative: str = "two-sided",
    permutations: int,
    seed: int,
) -> HeadTests:
    """Are prompts of the first group above (or beside) those of the second? Prompts may change groups."""
    P, C = len(scores_PF), len(controls_CF)
    _check(correction, alternative, min(P, C))
    both_NF = np.concatenate([scores_PF, controls_CF])
    spread_F = both_NF.std(0)
    scaled_NF = (both_NF - both_NF.mean(0)) / np.where(spread_F > 0, spread_F, 1.0)
    exact = math.comb(P + C, P) <= permutations + 1
    first_RN = _groups(P, C) if exact else _drawn_groups(P, C, permutations, seed)
    sums_RF, squares_RF = first_RN @ scaled_NF, first_RN @ scaled_NF**2
    mean_RF, other_RF = sums_RF / P, (scaled_NF.sum(0) - sums_RF) / C
    variance_RF = (squares_RF - P * mean_RF**2) / (P - 1) / P
    variance_RF += ((scaled_NF**2).sum(0) - squares_RF - C * other_RF**2) / (C - 1) / C
    t_RF = (mean_RF - other_RF) / np.sqrt(np.maximum(variance_RF, 0.0) + FLOOR)
    return _tests(scores_PF.mean(0) - controls_CF.mean(0), t_RF, correction, alternative, exact)


def one_group(
    differences_PF: Array, *, correction: str, alternative: str = "two-sided", permutations: int, seed: int
) -> HeadTests:
    """Are differences (of pairs, say) above or beside zero? Each may change its sign."""
    P = len(differences_PF)
    _check(correction, alternative, P)
    size_F = np.sqrt((differences_PF**2).mean(0))
    scaled_PF = differences_PF / np.where(size_F > 0, size_F, 1.0)
    exact = permutations + 1 >= 2**P
    signs_RP = _signs(P) if exact else _drawn_signs(P, permutations, seed)
    mean_RF = signs_RP @ scaled_PF / P
    t_RF = mean_RF / np.sqrt(np.maximum((scaled_PF**2).mean(0) - mean_RF**2, 0.0) / (P - 1) + FLOOR)
    return _tests(differences_PF.mean(0), t_RF, correction, alternative, exact)


def smallest_p(
    num_prompts: int, num_controls: int | None, *, alternative: str, permutations: int, paired: bool
) -> float:
    """The least p that any head could have, before correction; it depends on the numbers of prompts alone."""
    if paired or num_controls is None:
        total, mirrored = 2**num_prompts, True
    else:
        total, mirrored = math.comb(num_prompts + num_controls, num_prompts), num_prompts == num_controls
    least = 2 if mirrored and alternative == "two-sided" else 1  # the mirror image is as extreme
    return least / total if total <= permutations + 1 else 1 / (permutations + 1)


def smallest_corrected(smallest: float, num_heads: int, correction: str) -> float:
    """The least corrected p that one head could have when no other head shows anything."""
    if correction in ("max-t", "none"):
        return smallest
    factor = float(num_heads)
    if correction == "by":
        factor *= sum(1.0 / rank for rank in range(1, num_heads + 1))
    return min(1.0, smallest * factor)


def corrected(p_F: Array, correction: str) -> Array:
    """p-values corrected for their number, by any of `CORRECTIONS` but `max-t`."""
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


def _check(correction: str, alternative: str, fewest: int) -> None:
    if correction not in CORRECTIONS:
        raise RequestError(f"correction {correction!r} is unknown: take one of {', '.join(CORRECTIONS)}")
    if alternative not in ALTERNATIVES:
        raise RequestError(f"alternative {alternative!r} is unknown: take {' or '.join(ALTERNATIVES)}")
    if fewest < FEWEST:
        raise RequestError(f"a group has {fewest} prompt: a test needs {FEWEST} or more in each")


def _tests(effect_F: Array, t_RF: Array, correction: str, alternative: str, exact: bool) -> HeadTests:
    size_RF = np.abs(t_RF) if alternative == "two-sided" else t_RF
    size_RF = size_RF * (1.0 + TIE * np.sign(size_RF))
    observed_F = t_RF[0] if alternative == "greater" else np.abs(t_RF[0])
    p_F = (size_RF >= observed_F).mean(0)
    return HeadTests(
        effect_F=effect_F,
        p_F=p_F,
        p_corrected_F=_step_down(size_RF, observed_F)
        if correction == "max-t"
        else corrected(p_F, correction),
        relabellings=len(t_RF),
        exact=exact,
    )


def _step_down(size_RF: Array, observed_F: Array) -> Array:
    """Each head against the largest of itself and all that show less."""
    order = np.argsort(-observed_F, kind="stable")
    largest_RF = np.maximum.accumulate(size_RF[:, order[::-1]], axis=1)[:, ::-1]
    return _back(np.maximum.accumulate((largest_RF >= observed_F[order]).mean(0)), order)


def _back(sorted_F: Array, order: npt.NDArray[np.intp]) -> Array:
    found = np.empty_like(sorted_F)
    found[order] = sorted_F
    return found


def _groups(P: int, C: int) -> Array:
    """(R, P + C): 1 where a prompt is in the first group; all ways."""
    chosen_RP = np.array(list(itertools.combinations(range(P + C), P)))
    return _ones(chosen_RP, P + C)


def _drawn_groups(P: int, C: int, permutations: int, seed: int) -> Array:
    order_RN = np.random.default_rng(seed).random((permutations, P + C)).argsort(1)
    return _ones(np.concatenate([np.arange(P)[None], order_RN[:, :P]]), P + C)


def _ones(chosen_RP: npt.NDArray[np.int64], total: int) -> Array:
    first_RN = np.zeros((len(chosen_RP), total))
    np.put_along_axis(first_RN, chosen_RP, 1.0, axis=1)
    return first_RN


def _signs(P: int) -> Array:
    """(R, P): all ways to choose signs."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=P)))


def _drawn_signs(P: int, permutations: int, seed: int) -> Array:
    drawn_RP = np.random.default_rng(seed).choice((1.0, -1.0), size=(permutations, P))
    return np.concatenate([np.ones((1, P)), drawn_RP])
