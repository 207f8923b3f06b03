"""How often does `alens compare` name a head where none changes, and how often does it find one that does?

Readings are drawn, not read from a model: clean and suspect ones of the same mean in every head (Dirichlet's
distribution), of which one kind may spread more. A table of false alarms (the share of draws in which some head has an
adjusted p of 5 % or less) and one of power (one head of H puts more on a token when suspect), for `compare` and for
shuffled labels alone. Prints Markdown. docs/decisions/0034 has a run.

    python benchmarks/compare_family_wise_error.py [--draws 400] [--heads 12] [--permutations 199]
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch

from alens.statistics import mean_readings
from alens.studies.comparison.chance import Chance, Draws, p_values

ALPHA = 0.05
VOCABULARY = 20
SIZES = ((3, 3), (5, 5), (8, 8), (10, 10), (30, 30), (5, 20), (10, 30), (30, 10))
EVEN, WIDE, WIDEST = 20.0, 4.0, 1.0
"""Concentrations: the variance of a probability p is p (1 - p) / (1 + concentration), so standard deviations are as
1 : 2.0 : 3.2. Narrower ones are more skewed."""
SHIFTS = {(5, 5): 0.25, (10, 10): 0.12, (30, 30): 0.05, (10, 30): 0.09, (30, 10): 0.09}
"""For power: the probability that moves to one token."""

Test = Callable[[list[torch.Tensor], tuple[int, int], int], float]
"""Readings (N, V) of each head, clean prompts first; how many of either kind; permutations -> the least adjusted p."""


def readings(
    random: np.random.Generator,
    sizes: tuple[int, int],
    concentrations: tuple[float, float],
    heads: int,
    shift: float,
) -> list[torch.Tensor]:
    """H times (N, V). `shift` is that of the first head."""
    found = []
    for head in range(heads):
        mean_V = random.dirichlet(np.ones(VOCABULARY)) + 1e-3
        mean_V /= mean_V.sum()
        clean_CV, suspect_SV = (
            random.dirichlet(mean_V * concentration, size)
            for size, concentration in zip(sizes, concentrations, strict=True)
        )
        if head == 0:
            suspect_SV *= 1 - shift
            suspect_SV[:, 0] += shift
        found.append(torch.from_numpy(np.concatenate([clean_CV, suspect_SV])))
    return found


def by_compare(heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int) -> float:
    """As `alens compare` does it."""
    chance = Chance(*sizes, permutations, seed=0)
    return float(p_values([chance.draws(one) for one in heads])[1].min())


def in_pairs(heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int) -> float:
    """As `alens compare --paired` does it."""
    chance = Chance(*sizes, permutations, seed=0, paired=True)
    return float(p_values([chance.draws(one) for one in heads])[1].min())


def by_labels(
    heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int, paired: bool = False
) -> float:
    """Labels are shuffled, divergences compared as they are, and nothing else is done."""
    observed = mean_readings.observed(*sizes)
    shuffled = mean_readings.permuted(*sizes, permutations, 0, paired=paired)
    draws = []
    for one in heads:
        shuffled_P = mean_readings.under(shuffled, one)
        rows_Q = np.concatenate([mean_readings.under(observed, one), shuffled_P])
        draws.append(Draws(divergence=[shuffled_P], statistic=[rows_Q]))
    return float(p_values(draws)[1].min())


def swapped(heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int) -> float:
    """The same within pairs."""
    return by_labels(heads, sizes, permutations, paired=True)


def named(
    tests: list[Test],
    sizes: tuple[int, int],
    concentrations: tuple[float, float],
    *,
    heads: int,
    shift: float = 0.0,
    draws: int,
    permutations: int,
) -> list[float]:
    """For each test the share of draws in which some head is significant."""
    hits = np.zeros(len(tests))
    for draw in range(draws):
        drawn = readings(np.random.default_rng([draw, *sizes, heads]), sizes, concentrations, heads, shift)
        hits += [test(drawn, sizes, permutations) <= ALPHA for test in tests]
    return list(hits / draws)


def rows(heads: int, draws: int, permutations: int) -> Iterator[list[str]]:
    """False alarms."""
    kinds = ((EVEN, EVEN), (EVEN, WIDE), (WIDE, EVEN), (EVEN, WIDEST), (WIDEST, WIDEST))
    for sizes in SIZES:
        for concentrations in kinds:
            tests: list[Test] = [by_labels, by_compare]
            tests += [swapped, in_pairs] if sizes[0] == sizes[1] else []
            shares = named(tests, sizes, concentrations, heads=heads, draws=draws, permutations=permutations)
            shown = [f"{share:.3f}" for share in shares] + ["-"] * (4 - len(shares))
            yield [f"{sizes[0]} v {sizes[1]}", "{:g} v {:g}".format(*concentrations), *shown]


def power(heads: int, draws: int, permutations: int) -> Iterator[list[str]]:
    """How often one head is found that changes."""
    for sizes, shift in SHIFTS.items():
        tests = [by_labels, by_compare]
        found = named(
            tests, sizes, (EVEN, EVEN), heads=heads, shift=shift, draws=draws, permutations=permutations
        )
        yield [f"{sizes[0]} v {sizes[1]}", f"{shift:g}", *(f"{share:.3f}" for share in found)]


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
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--permutations", type=int, default=199)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sizes = (asked.heads, asked.draws, asked.permutations)
    table(
        f"Some of {asked.heads} heads significant at 5 % where none changes, {asked.draws} draws",
        [
            "clean v suspect",
            "concentrations",
            "shuffled labels alone",
            "compare",
            "swapped pairs alone",
            "--paired",
        ],
        rows(*sizes),
    )
    table(
        f"One of {asked.heads} heads changes: significant at 5 %",
        ["clean v suspect", "moved to a token", "shuffled labels alone", "compare"],
        power(*sizes),
    )


if __name__ == "__main__":
    main()
