"""How often does `alens compare` name a head where none changes, and how often does it find one that does?

Readings are drawn, not read from a model: clean and suspect ones have the same mean in every head (a Dirichlet
distribution), and one kind may spread more. False alarms are the share of draws in which some head has an adjusted p of
5 % or less. For power, one head of H puts more on a token when suspect. Each is given for `compare` and for shuffled
labels alone. docs/decisions/0034 has a run.
Shapes: H heads, N prompts (C clean, S suspect), V vocabulary, P permutations, Q draws with the observed one.
"""

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
"""The probability that moves to one token, for power."""

Test = Callable[[list[torch.Tensor], tuple[int, int], int], float]
"""A function of the readings (N, V) of each head, clean prompts first, the numbers of either kind, and the number of
permutations; it returns the smallest adjusted p of any head."""


def readings(
    random: np.random.Generator,
    sizes: tuple[int, int],
    concentrations: tuple[float, float],
    heads: int,
    shift: float,
) -> list[torch.Tensor]:
    """The readings (N, V) of each head. `shift` is the change of the first head."""
    readings_H = []
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
        readings_H.append(torch.from_numpy(np.concatenate([clean_CV, suspect_SV])))
    return readings_H


def by_compare(heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int) -> float:
    """The test of `alens compare`."""
    chance = Chance(*sizes, permutations, seed=0)
    return float(p_values([chance.draws(one) for one in heads])[1].min())


def in_pairs(heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int) -> float:
    """The test of `alens compare --paired`."""
    chance = Chance(*sizes, permutations, seed=0, paired=True)
    return float(p_values([chance.draws(one) for one in heads])[1].min())


def by_labels(
    heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int, paired: bool = False
) -> float:
    """Shuffled labels alone, without the second kind of draws."""
    observed = mean_readings.observed(*sizes)
    shuffled = mean_readings.permuted(*sizes, permutations, 0, paired=paired)
    draws = []
    for one in heads:
        shuffled_P = mean_readings.under(shuffled, one)
        rows_Q = np.concatenate([mean_readings.under(observed, one), shuffled_P])
        draws.append(Draws(divergence=[shuffled_P], statistic=[rows_Q]))
    return float(p_values(draws)[1].min())


def swapped(heads: list[torch.Tensor], sizes: tuple[int, int], permutations: int) -> float:
    """Labels swapped within pairs alone."""
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
    """The share of draws in which some head is significant, for each test."""
    hits = np.zeros(len(tests))
    for draw in range(draws):
        drawn = readings(np.random.default_rng([draw, *sizes, heads]), sizes, concentrations, heads, shift)
        hits += [test(drawn, sizes, permutations) <= ALPHA for test in tests]
    return list(hits / draws)


def false_alarms(heads: int, draws: int, permutations: int) -> Iterator[list[str]]:
    """The rows of the table of false alarms."""
    kinds = ((EVEN, EVEN), (EVEN, WIDE), (WIDE, EVEN), (EVEN, WIDEST), (WIDEST, WIDEST))
    for sizes in SIZES:
        for concentrations in kinds:
            tests: list[Test] = [by_labels, by_compare]
            tests += [swapped, in_pairs] if sizes[0] == sizes[1] else []
            shares = named(tests, sizes, concentrations, heads=heads, draws=draws, permutations=permutations)
            shown = [f"{share:.3f}" for share in shares] + ["-"] * (4 - len(shares))
            yield [f"{sizes[0]} v {sizes[1]}", "{:g} v {:g}".format(*concentrations), *shown]


def power(heads: int, draws: int, permutations: int) -> Iterator[list[str]]:
    """The rows of the table of power: how often the one head that changes is found."""
    for sizes, shift in SHIFTS.items():
        tests: list[Test] = [by_labels, by_compare]
        shares = named(
            tests, sizes, (EVEN, EVEN), heads=heads, shift=shift, draws=draws, permutations=permutations
        )
        yield [f"{sizes[0]} v {sizes[1]}", f"{shift:g}", *(f"{share:.3f}" for share in shares)]


def tables(heads: int, draws: int, permutations: int) -> Iterator[tuple[str, list[str], Iterator[list[str]]]]:
    """Title, headings and rows of each table."""
    sizes = (heads, draws, permutations)
    yield (
        f"compare: some of {heads} heads significant at 5 % where none changes, {draws} draws",
        [
            "clean v suspect",
            "concentrations",
            "shuffled labels alone",
            "compare",
            "swapped pairs alone",
            "--paired",
        ],
        false_alarms(*sizes),
    )
    yield (
        f"compare: one of {heads} heads changes, significant at 5 %",
        ["clean v suspect", "moved to a token", "shuffled labels alone", "compare"],
        power(*sizes),
    )
