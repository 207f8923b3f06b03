"""How often does `alens locate` name a head where no head differs, and how often does it find one that does?

Scores are drawn, not read from a model: prompts and controls have the same mean in every head and a spread that may
differ; heads are alike or not; scores are normal, heavy-tailed or skewed. False alarms are the share of draws in which
any head is significant at 5 %. For power, one head of F has another mean. Each is given for `locate` and for
relabelling alone. docs/decisions/0034 has a run.
Shapes: P prompts, C controls, F heads, R relabellings.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from alens.statistics import relabelling as chance
from alens.statistics.bootstrap import Array
from alens.statistics.corrections import step_down
from alens.statistics.permutation import one_group, two_groups

ALPHA = 0.05
SIZES = ((4, 4), (5, 5), (6, 6), (8, 8), (10, 10), (20, 20), (5, 20), (6, 18), (18, 6))
SPREADS = (1.0, 2.0, 4.0)
"""Standard deviations of the prompts' scores, in units of that of the controls."""
ALIKE = (0.0, 0.7)
"""The share of a score's variance that all heads have in common."""
SHIFTS = {(6, 6): 3.0, (8, 8): 2.2, (10, 10): 1.8, (20, 20): 1.2, (6, 18): 2.4}
"""The effect for power, in standard errors: about half of the draws find it."""

FORMS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "Student's t, 3 degrees": lambda random, shape: random.standard_t(3, shape) / math.sqrt(3),
    "chi-squared, 8 degrees": lambda random, shape: (8 - random.chisquare(8, shape)) / 4,
    "chi-squared, 3 degrees": lambda random, shape: (3 - random.chisquare(3, shape)) / math.sqrt(6),
}
"""Distributions with mean 0 and variance 1; the last two have a skewness of -1.0 and -1.6, as logarithms of probabilities
may have."""

Test = Callable[[Array, Array, int], float]
"""A function of the scores of prompts and controls and the number of permutations; it returns the smallest corrected p."""


def scores(random: np.random.Generator, prompts: int, heads: int, form: str, alike: float) -> Array:
    """(P, F) scores with mean 0 and variance 1."""
    own, common = FORMS[form](random, (prompts, heads)), FORMS[form](random, (prompts, 1))
    both: Array = math.sqrt(1 - alike) * own + math.sqrt(alike) * common
    return both


def by_locate(ours: Array, theirs: Array, permutations: int) -> float:
    """The test of `alens locate`."""
    return float(
        two_groups(ours, theirs, correction="max-t", permutations=permutations, seed=0).p_corrected_F.min()
    )


def by_relabelling(ours: Array, theirs: Array, permutations: int) -> float:
    """Relabelling alone, without flipped signs."""
    t_RF, _ = chance.relabelled(ours, theirs, permutations=permutations, seed=0)
    return float(step_down(np.abs(t_RF), np.abs(t_RF[0])).min())


def in_pairs(ours: Array, theirs: Array, permutations: int) -> float:
    """The test of `alens locate --paired`."""
    tests = one_group(ours - theirs, correction="max-t", permutations=permutations, seed=0)
    return float(tests.p_corrected_F.min())


def without_controls(ours: Array, theirs: Array, permutations: int) -> float:
    """The test of `alens locate` without controls."""
    tests = one_group(
        ours, correction="max-t", alternative="greater", permutations=permutations, seed=0, skewed=True
    )
    return float(tests.p_corrected_F.min())


def named(
    test: Test,
    sizes: tuple[int, int],
    spread: float,
    *,
    heads: int,
    form: str = "normal",
    alike: float = 0.0,
    shift: float = 0.0,
    draws: int,
    permutations: int,
) -> float:
    """The share of draws in which some head is significant.

    `shift` moves the first head, in standard errors of two groups with the same spread.
    """
    P, C = sizes
    scale = math.sqrt((spread**2 / P + 1 / C) / (1 / P + 1 / C))
    hits = 0
    for draw in range(draws):
        random = np.random.default_rng([draw, P, C, heads])
        ours = spread * scores(random, P, heads, form, alike)
        theirs = scores(random, C, heads, form, alike)
        ours[:, 0] += shift * scale
        hits += test(ours, theirs, permutations) <= ALPHA
    return hits / draws


def false_alarms(heads: int, draws: int, permutations: int) -> Iterator[list[str]]:
    """The rows of the table of false alarms."""
    asked = {"heads": heads, "draws": draws, "permutations": permutations}
    for form in FORMS:
        for sizes in SIZES:
            for spread in SPREADS:
                for alike in ALIKE:
                    tests: list[Test] = [by_relabelling, by_locate]
                    tests += [in_pairs] if sizes[0] == sizes[1] else []
                    tests += [without_controls] if sizes[0] == sizes[1] and spread == 1 else []
                    shares = [named(test, sizes, spread, form=form, alike=alike, **asked) for test in tests]
                    shown = [f"{share:.3f}" for share in shares] + ["-"] * (4 - len(shares))
                    yield [form, f"{sizes[0]} v {sizes[1]}", f"{spread:g}", f"{alike:g}", *shown]


def power(heads: int, draws: int, permutations: int) -> Iterator[list[str]]:
    """The rows of the table of power: how often the one head that differs is found; the others are alike by half."""
    for sizes, shift in SHIFTS.items():
        for spread in SPREADS:
            shares = [
                named(test, sizes, spread, alike=0.5, shift=shift, heads=heads, draws=draws, permutations=permutations)
                for test in (by_relabelling, by_locate)
            ]  # fmt: skip
            yield [f"{sizes[0]} v {sizes[1]}", f"{spread:g}", *(f"{share:.3f}" for share in shares)]


def tables(heads: int, draws: int, permutations: int) -> Iterator[tuple[str, list[str], Iterator[list[str]]]]:
    """Title, headings and rows of each table."""
    sizes = (heads, draws, permutations)
    yield (
        f"locate: any of {heads} heads significant at 5 % where none differs, {draws} draws",
        [
            "scores",
            "prompts v controls",
            "spread ratio",
            "alike",
            "relabelling alone",
            "locate",
            "--paired",
            "no controls",
        ],
        false_alarms(*sizes),
    )
    yield (
        f"locate: one of {heads} heads differs, significant at 5 %",
        ["prompts v controls", "spread ratio", "relabelling alone", "locate"],
        power(*sizes),
    )
