"""Tests of many heads at once: does one group of prompts score above another, or above zero?

In: scores of P prompts by F heads. Out: `HeadTests`: for each head the difference, a p-value, and a p-value corrected
for having looked at F heads. Draws of chance move whole prompts (`relabelling`), so heads that score alike stay alike.
A head gets the larger of two p-values, each from its own kind of draws:
- two groups: relabelled prompts and flipped signs, so that a head must stand out both if the groups are alike and if one
  of them spreads more;
- one group that is compared with a number: flipped signs and redrawn prompts;
- pairs have one kind, flipped signs.
Shapes: P prompts of the first group, C of the second, F heads, R draws (the observed one first).
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from alens.errors import RequestError
from alens.statistics import relabelling as chance
from alens.statistics.bootstrap import Array
from alens.statistics.corrections import check_correction, corrected, step_down

ALTERNATIVES = ("two-sided", "greater")
FEWEST = 2
"""Prompts that a group needs to have a spread."""

FEWEST_OF_UNEQUAL_SPREAD = 8
"""Prompts that a group needs for p-values to hold where one group spreads more: docs/decisions/0034."""

TIE = 1e-9
"""Relative difference up to which draws count as equal: they add up the same numbers in another order."""


@dataclass(frozen=True, kw_only=True)
class HeadTests:
    """The test of each head."""

    effect_F: Array
    """Mean of the first group, minus that of the second where there is one."""
    p_F: Array
    p_corrected_F: Array
    relabellings: int
    exact: bool
    """Whether all relabellings were taken; if not, some were drawn."""
    more_draws: int = 0
    """How many draws of the second kind; 0 for pairs, which have one kind."""


def two_groups(
    scores_PF: Array,
    controls_CF: Array,
    *,
    correction: str,
    alternative: str = "two-sided",
    permutations: int,
    seed: int,
) -> HeadTests:
    """Test whether prompts of the first group score above (or differently from) those of the second.

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
    """Test whether differences (of pairs, say) are above (or different from) zero. Each may change its sign.

    `skewed`: they may have a long tail on one side. Differences of pairs that differ by chance alone have none.
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
    """The smallest p-value that any head could have, before correction; the numbers of prompts alone decide it."""
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
    """The tests with the larger p-value of two kinds of draws."""
    return replace(
        tests,
        p_F=np.maximum(tests.p_F, others.p_F),
        p_corrected_F=np.maximum(tests.p_corrected_F, others.p_corrected_F),
        more_draws=others.relabellings - 1,
    )
