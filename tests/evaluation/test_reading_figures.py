"""Intervals and differences of readings, beside scipy's bootstrap."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from alens.evaluation.reading_figures import Judged
from alens.evaluation.sums import ALL, ENTROPY, KL, SURPRISE, ReadingSums

CPU = torch.device("cpu")


def sums(kl_GQ: np.ndarray, rows_G: np.ndarray, next_G: np.ndarray | None = None) -> ReadingSums:
    """As if rows had been added whose KL and surprise sum to `kl_GQ`."""
    G, Q = kl_GQ.shape
    sums_of_kl = ReadingSums(Q, CPU, num_groups=G, figures=ALL)
    sums_of_kl.rows_G += torch.from_numpy(rows_G)
    sums_of_kl.next_G += torch.from_numpy(rows_G if next_G is None else next_G)
    for column in (KL, SURPRISE):
        sums_of_kl.sums_GQC[..., column] += torch.from_numpy(kl_GQ)
    return sums_of_kl


def drawn(seed: int, G: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Two readings whose KL moves together from sequence to sequence; the second is 0.1 worse."""
    random = np.random.default_rng(seed)
    rows_G = random.integers(5, 15, G).astype(float)
    common_G = random.normal(2.0, 0.5, G)
    kl_GQ = np.stack([common_G, common_G + 0.1 + random.normal(0, 0.02, G)], axis=1)
    return kl_GQ * rows_G[:, None], rows_G


def test_intervals_are_those_of_scipys_bootstrap_up_to_the_draws() -> None:
    kl_GQ, rows_G = drawn(0)
    low, high = Judged(sums(kl_GQ, rows_G), seed=0, resamples=4000).figures(0).intervals["kl"] or (0, 0)
    theirs = scipy.stats.bootstrap(
        (kl_GQ[:, 0], rows_G),
        lambda kl, rows, axis: kl.sum(axis=axis) / rows.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(1),
        vectorized=True,
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=0.06 * width)


def test_a_paired_difference_is_seen_where_intervals_overlap() -> None:
    kl_GQ, rows_G = drawn(1)
    difference = Judged(sums(kl_GQ, rows_G), seed=0).difference("kl", 0, 1)
    assert difference is not None and difference.interval is not None
    assert difference.difference == pytest.approx((kl_GQ[:, 0] - kl_GQ[:, 1]).sum() / rows_G.sum())
    assert difference.interval[0] < difference.difference < difference.interval[1] < 0
    assert difference.surely_better and not difference.apart and not difference.better_apart


def test_intervals_that_do_not_overlap_are_apart_and_worse_is_not_better() -> None:
    kl_GQ, rows_G = drawn(2)
    kl_GQ[:, 1] += 3 * rows_G
    judged = Judged(sums(kl_GQ, rows_G), seed=0)
    better, worse = judged.difference("kl", 0, 1), judged.difference("kl", 1, 0)
    assert better is not None and worse is not None
    assert better.apart and better.better_apart and better.surely_better
    assert worse.apart and not worse.better_apart and not worse.surely_better
    assert worse.difference == -better.difference


def test_sequences_without_rows_are_never_drawn() -> None:
    kl_GQ, rows_G = drawn(3)
    with_empty = sums(np.concatenate([kl_GQ, np.zeros((5, 2))]), np.concatenate([rows_G, np.zeros(5)]))
    judged_with, plain = Judged(with_empty, seed=0), Judged(sums(kl_GQ, rows_G), seed=0)
    assert judged_with.groups == plain.groups == 40
    assert judged_with.figures(0) == plain.figures(0)


def test_a_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    kl_GQ, rows_G = drawn(4)
    first, again, other = (Judged(sums(kl_GQ, rows_G), seed=seed).figures(0) for seed in (0, 0, 1))
    assert first == again and first.intervals != other.intervals


def test_figures_without_a_next_token_have_no_value() -> None:
    kl_GQ, rows_G = drawn(5)
    judged = Judged(sums(kl_GQ, rows_G, np.zeros_like(rows_G)), seed=0)
    figures = judged.figures(0)
    assert (
        figures.cross_entropy is None and figures.calibration_error is None and figures.bits_per_byte is None
    )
    assert figures.intervals["cross_entropy"] is None and judged.difference("cross_entropy", 0, 1) is None
    assert math.isfinite(figures.kl) and figures.intervals["kl"] is not None


def test_resamples_without_a_next_token_are_left_out() -> None:
    """One sequence of 40 has all next tokens: a third of the resamples lack it."""
    kl_GQ, rows_G = drawn(6)
    next_G = np.where(np.arange(40) == 0, rows_G, 0.0)
    made = sums(kl_GQ, rows_G, next_G)
    made.sums_GQC[1:, :, SURPRISE] = 0
    made.sums_GQC[..., ENTROPY] = 0
    interval = Judged(made, seed=0).figures(0).intervals["cross_entropy"]
    assert interval == pytest.approx((kl_GQ[0, 0] / rows_G[0],) * 2)
