"""How often does `alens locate` name a head where no head differs, and how often does it find one that does?

Scores are drawn, not read from a model: prompts and controls with the same mean in every head and a spread that may
differ, heads alike or not, normal, heavy-tailed or skewed. A table of false alarms (the share of draws in which any
head is significant at 5 %) and one of power (one head of F has another mean), for `locate` and for relabelling alone.
Prints Markdown. docs/decisions/0034 has a run.

    python benchmarks/family_wise_error.py [--draws 1000] [--heads 24] [--permutations 499]
"""

import argparse
import math
from collections.abc import Callable, Iterator

import numpy as np

from alens.statistics import relabelling as chance
from alens.statistics.corrections import step_down
from alens.statistics.permutation import one_group, two_groups
from alens.statistics.relabelling import Array

ALPHA = 0.05
SIZES = ((4, 4), (5, 5), (6, 6), (8, 8), (10, 10), (20, 20), (5, 20), (6, 18), (18, 6))
SPREADS = (1.0, 2.0, 4.0)
"""Of the prompts' scores, in units of the controls'."""
ALIKE = (0.0, 0.7)
"""The share of a score's variance that all heads have in common."""
SHIFTS = {(6, 6): 3.0, (8, 8): 2.2, (10, 10): 1.8, (20, 20): 1.2, (6, 18): 2.4}
"""For power, in units of the spread: about half of the draws are found."""

FORMS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda random, shape: random.standard_normal(shape),
    "Student's t, 3 degrees": lambda random, shape: random.standard_t(3, shape) / math.sqrt(3),
    "chi-squared, 8 degrees": lambda random, shape: (8 - random.chisquare(8, shape)) / 4,
    "chi-squared, 3 degrees": lambda random, shape: (3 - random.chisquare(3, shape)) / math.sqrt(6),
}
"""Of mean 0 and variance 1; the last two have a skewness of -1.0 and -1.6, as logarithms of probabilities may."""

Test = Callable[[Array, Array, int], float]
"""Scores of prompts and of controls, permutations -> the smallest corrected p of any head."""


def scores(random: np.random.Generator, prompts: int, heads: int, form: str, alike: float) -> Array:
    """(P, F) of mean 0 and variance 1."""
    own, common = FORMS[form](random, (prompts, heads)), FORMS[form](random, (prompts, 1))
    both: Array = math.sqrt(1 - alike) * own + math.sqrt(alike) * common
    return both


def by_locate(ours: Array, theirs: Array, permutations: int) -> float:
    """As `alens locate` does it."""
    return float(
        two_groups(ours, theirs, correction="max-t", permutations=permutations, seed=0).p_corrected_F.min()
    )


def by_relabelling(ours: Array, theirs: Array, permutations: int) -> float:
    """Labels are dealt out anew, and nothing else is done."""
    t_RF, _ = chance.relabelled(ours, theirs, permutations=permutations, seed=0)
    return float(step_down(np.abs(t_RF), np.abs(t_RF[0])).min())


def in_pairs(ours: Array, theirs: Array, permutations: int) -> float:
    """As `alens locate --paired` does it."""
    tests = one_group(ours - theirs, correction="max-t", permutations=permutations, seed=0)
    return float(tests.p_corrected_F.min())


def without_controls(ours: Array, theirs: Array, permutations: int) -> float:
    """As `alens locate` does it against the mean output."""
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
    """The share of draws in which some head is significant. `shift` is that of the first head, in standard errors
    of two groups of one spread."""
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


def rows(heads: int, draws: int, permutations: int) -> Iterator[list[str]]:
    """False alarms."""
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
    """How often a head is found that differs; the others are alike by half."""
    for sizes, shift in SHIFTS.items():
        for spread in SPREADS:
            shares = [
                named(test, sizes, spread, alike=0.5, shift=shift, heads=heads, draws=draws, permutations=permutations)
                for test in (by_relabelling, by_locate)
            ]  # fmt: skip
            yield [f"{sizes[0]} v {sizes[1]}", f"{spread:g}", *(f"{share:.3f}" for share in shares)]


def table(title: str, names: list[str], lines: Iterator[list[str]]) -> None:
    """Rows are shown as they come."""
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--heads", type=int, default=24)
    parser.add_argument("--permutations", type=int, default=499)
    asked = parser.parse_args()
    sizes = (asked.heads, asked.draws, asked.permutations)
    table(
        f"Any of {asked.heads} heads significant at 5 % where none differs, {asked.draws} draws",
        ["scores", "prompts v controls", "spread ratio", "alike", "relabelling alone", "locate", "--paired", "no controls"],
        rows(*sizes),
    )  # fmt: skip
    table(
        f"One of {asked.heads} heads differs: significant at 5 %",
        ["prompts v controls", "spread ratio", "relabelling alone", "locate"],
        power(*sizes),
    )


if __name__ == "__main__":
    main()
