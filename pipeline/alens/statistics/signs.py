"""Signs that prompts may take by chance: the draws of the wild bootstrap.

In: how many prompts, how many draws. Out: (R, N) of 1 and -1. A draw is the same for all heads, so heads that read alike
stay alike. docs/decisions/0034 says why signs.
Shapes: N prompts, R draws.
"""

import itertools

import numpy as np

from alens.statistics.bootstrap import Array

FLIPS = 1
"""Second part of the seed of flips, so that they differ from relabellings."""


def all_signs(N: int) -> Array:
    """(2^N, N): all ways to choose signs; the first changes none."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=N)))


def flips(N: int, number: int, seed: int) -> Array:
    """(R, N): all ways to choose signs where there are at most `number`, else as many draws."""
    if number >= 2**N:
        return all_signs(N)
    return np.random.default_rng([seed, FLIPS]).choice((1.0, -1.0), size=(number, N))
