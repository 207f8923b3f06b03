"""Tests of many heads at once: does one group of prompts score above another, or above zero?

In: scores of P prompts by F heads. Out: `HeadTests`: for each head the difference, a p-value, and a p-value corrected
for having looked at F heads. Draws of chance move whole prompts (`chance`), so heads that score alike stay alike.
A head has the larger of two p-values: of relabelling and of flipped signs with two groups, so that it must stand out
if the groups are alike and if one of them spreads more; of flipped signs and of redrawn prompts where one group is
compared with a number. Pairs have one.
Shapes: P prompts of the first group, C of the second, F heads, R draws (the observed one first).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from alens.errors import RequestError
from alens.statistics import relabelling as chance
from alens.statistics.corrections import check_correction, corrected, step_down
from alens.statistics.relabelling import Array

ALTERNATIVES = ("two-sided", "greater")
FEWEST = 2
"""Prompts a group, to have a spread."""

FEWEST_OF_UNEQUAL_SPREAD = 8
"""Prompts a group, for p-values to hold where one group spreads more: docs/decisions/0034."""

TIE = 1e-9
"""Draws that give the same sums in another order count as equal."""


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
    more_draws: int = 0
    """Draws of the second kind; 0 for pairs, which have one kind."""


def two_groups(
    scores_PF: Array,
    controls_CF: Array,
    *,
    correction: str,
    alternative: str = "two-sided",
    permutations: int,
    seed: int,
) -> HeadTests:
    """Are prompts of the first group above (or beside) those of the second?

    Raises `RequestError` for a group of one prompt, or names that are unknown.
    """
    _check(correction, alternative, min(len(scores_PF), len(controls_CF)))
    effect_F = scores_PF.mean(0) - controls_CF.mean(0)
    t_RF, exact = chance.relabelled(scores_PF, controls_CF, permutations=permutations, seed=seed)
    alike = _tests(effect_F, t_RF, correction, alternative, exact)
    t_RF = chance.flipped(scores_PF, controls_CF, permutations=permutations, seed=seed)
    return _larger(alike, _tests(effect_F, t_RF, correction, alternative, exact))


def one_group(
    differences_PF: Array,
    *,
    correction: str,
    alternative: str = "two-sided",
    permutations: int,
    seed: int,
    skewed: bool = False,
) -> HeadTests:
    """Are differences (of pairs, say) above or beside zero? Each may change its sign.

    `skewed`: they may have a long tail on one side, as those of pairs that differ in nothing have not.
    Raises `RequestError` as `two_groups` does.
    """
    _check(correction, alternative, len(differences_PF))
    effect_F = differences_PF.mean(0)
    t_RF, exact = chance.signed(differences_PF, permutations=permutations, seed=seed)
    tests = _tests(effect_F, t_RF, correction, alternative, exact)
    if not skewed:
        return tests
    t_RF = chance.redrawn(differences_PF, permutations=permutations, seed=seed)
    return _larger(tests, _tests(effect_F, t_RF, correction, alternative, exact))


def smallest_p(
    num_prompts: int, num_controls: int | None, *, alternative: str, permutations: int, paired: bool
) -> float:
    """The least p that any head could have, before correction; it depends on the numbers of prompts alone."""
    drawn = 1 / (permutations + 1)
    if paired or num_controls is None:
        total, mirrored = 2**num_prompts, True
    else:
        total, mirrored = math.comb(num_prompts + num_controls, num_prompts), num_prompts == num_controls
        drawn = max(drawn, 1 / (2 ** (num_prompts + num_controls) + 1))
    least = 2 if mirrored and alternative == "two-sided" else 1  # the mirror image is as extreme
    return max(drawn, least / total) if total <= permutations + 1 else drawn


def _check(correction: str, alternative: str, fewest: int) -> None:
    check_correction(correction)
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
        p_corrected_F=step_down(size_RF, observed_F) if correction == "max-t" else corrected(p_F, correction),
        relabellings=len(t_RF),
        exact=exact,
    )


def _larger(tests: HeadTests, others: HeadTests) -> HeadTests:
    """With the larger p-values of two kinds of draws."""
    return replace(
        tests,
        p_F=np.maximum(tests.p_F, others.p_F),
        p_corrected_F=np.maximum(tests.p_corrected_F, others.p_corrected_F),
        more_draws=others.relabellings - 1,
    )
