"""Seeded draws that depend on their purpose and on nothing else.

A permutation or the uniforms of a row are a pure function of the seed, a purpose and a number (a shard, a row,
an epoch), never of the worker, the batch or the time. Philox is counter-based, so the draws of any row can be
computed alone.
"""

import numpy as np
import numpy.typing as npt

SEQUENCE_ORDER, ROW_ORDER, TAIL_SAMPLES, SHARD_ORDER, NARROWED_TAIL, BOOTSTRAP = range(6)
HELD_OUT_DOCUMENTS, SPREAD, OUTPUT_ROWS, EFFECT_ROWS, JACOBIAN_PROBES = range(100, 105)
(
    STUDY_TEXT,
    DONORS,
    RANDOM_BASIS,
    FOLDS,
    DESIGN_START,
    OTHER_ORDER,
    PAIRINGS,
    RANDOM_TOKENS,
    SAMPLED_TOKENS,
) = range(200, 209)
"""Purposes. The draws of one purpose never repeat those of another."""

DRAWS_A_COUNT = 4
"""64-bit numbers that Philox produces for each value of its counter."""


def permutation(size: int, seed: int, purpose: int, number: int = 0) -> npt.NDArray[np.int64]:
    """A permutation of `range(size)`, by sorting raw 64-bit draws: the same with every numpy version."""
    draws = np.random.Philox(np.random.SeedSequence([seed, purpose, number])).random_raw(size)
    return np.argsort(draws, kind="stable")


def row_uniforms(
    first_row: int, num_rows: int, draws: int, seed: int, purpose: int
) -> npt.NDArray[np.float64]:
    """(num_rows, draws) uniforms in [0, 1) for consecutive rows; those of a row depend on its number alone."""
    counts = -(-draws // DRAWS_A_COUNT)
    key = np.random.SeedSequence([seed, purpose]).generate_state(2, np.uint64)
    raw = np.random.Philox(key=key, counter=first_row * counts).random_raw(num_rows * counts * DRAWS_A_COUNT)
    return (raw >> np.uint64(11)).reshape(num_rows, -1)[:, :draws].astype(np.float64) * 2.0**-53


def generator(seed: int, purpose: int, *numbers: int) -> np.random.Generator:
    """A generator for a purpose and for numbers (a layer, a head), independent of those of all other seeds.

    Adding a number to the seed instead would give the generator that the next seed has for the number before.
    """
    return np.random.default_rng([seed, purpose, *numbers])


def derived_seed(seed: int, purpose: int, *numbers: int) -> int:
    """A seed in 0 .. 2^63 - 1, for libraries that take a single number."""
    state = np.random.SeedSequence([seed, purpose, *numbers]).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def spread(size: int, count: int, seed: int, purpose: int, number: int = 0) -> npt.NDArray[np.int64]:
    """(count,) numbers below `size`, ascending and evenly spaced, from a start that is drawn.

    They are distinct if `count` is at most `size`. The last one lies at least half a step before the end.
    """
    start = row_uniforms(number, 1, 1, seed, purpose)[0, 0] / 2
    places: npt.NDArray[np.int64] = np.floor((np.arange(count) + start) * (size / max(1, count))).astype(
        np.int64
    )
    return places


def scattered_uniforms(
    rows: npt.NDArray[np.integer], draws: int, seed: int, purpose: int
) -> npt.NDArray[np.float64]:
    """(len(rows), draws) uniforms in [0, 1) for rows in any order; those of a row depend on its number alone.

    SplitMix64 of a counter (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    """
    start = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)[0]
    counter = np.asarray(rows).astype(np.uint64)[:, None] * np.uint64(draws) + np.arange(
        draws, dtype=np.uint64
    )
    with np.errstate(over="ignore"):
        mixed = start + counter * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    uniforms: npt.NDArray[np.float64] = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return uniforms
