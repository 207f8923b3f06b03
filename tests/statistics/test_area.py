"""The area under a ROC curve and its interval, against comparisons that are counted and samples that are drawn."""

import numpy as np
import pytest
from scipy import special

from alens.statistics.area import Comparisons, comparisons

ALL = np.ones((1, 60), bool)


def counted(scores: np.ndarray, suspect: np.ndarray) -> float:
    wins = [(s > c) + 0.5 * (s == c) for s in scores[suspect] for c in scores[~suspect]]
    return float(np.mean(wins))


def drawn(number: int, seed: int, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    suspect = np.arange(number) % 3 == 0
    return np.round(rng.normal(size=number) + shift * suspect, 1), suspect  # rounded: some are equal


def all_compared(scores: np.ndarray, suspect: np.ndarray, paired: bool = False) -> Comparisons:
    return comparisons(scores[None], np.ones((1, len(scores)), bool), suspect, paired=paired)


def test_the_area_is_the_share_of_comparisons() -> None:
    scores, suspect = drawn(60, 0)
    assert all_compared(scores, suspect).area == pytest.approx(counted(scores, suspect))


def test_prompts_of_different_fits_are_not_compared() -> None:
    scores, suspect = drawn(60, 1)
    judged_BN = np.stack([np.arange(60) < 30, np.arange(60) >= 30])
    compared = comparisons(np.stack([scores, scores + 100]), judged_BN, suspect, paired=False)
    halves = [counted(scores[judged], suspect[judged]) for judged in judged_BN]
    assert compared.area == pytest.approx(np.mean(halves))


def test_a_fit_that_judged_one_kind_alone_is_left_out() -> None:
    scores, suspect = drawn(60, 1)
    judged_BN = np.stack([np.ones(60, bool), ~suspect])
    compared = comparisons(np.stack([scores, -scores]), judged_BN, suspect, paired=False)
    assert compared.area == pytest.approx(counted(scores, suspect))
    with pytest.raises(ValueError, match="no fit judged both"):
        _ = comparisons(scores[None], ~suspect[None], suspect, paired=False).area


def test_twins_are_not_compared() -> None:
    clean, suspect = np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.5, 2.5])
    flags = np.repeat([False, True], 3)
    scores = np.concatenate([clean, suspect])
    assert all_compared(scores, flags).area == pytest.approx(6 / 9)  # each suspect prompt is above its twin
    assert all_compared(scores, flags, paired=True).area == pytest.approx(3 / 6)
    mixed = np.array([3, 0, 4, 1, 5, 2])  # the order is that within each kind
    assert all_compared(scores[mixed], flags[mixed], paired=True).area == pytest.approx(3 / 6)


def test_the_interval_of_judged_prompts_holds_the_area_as_often_as_it_says() -> None:
    held = []
    for seed in range(400):
        scores, suspect = drawn(60, seed, shift=0.5)
        low, high = all_compared(scores, suspect).interval()
        held.append(low <= 0.638 <= high)  # of two normal distributions, half a deviation apart
    assert 0.92 < np.mean(held) < 0.98


def test_the_interval_is_students_of_the_kind_with_fewer_prompts() -> None:
    """The interval in log odds; the variance is that of areas without one prompt."""
    scores, suspect = drawn(15, 3)
    area, variance = counted(scores, suspect), 0.0
    for kind in (suspect, ~suspect):
        left = [counted(np.delete(scores, n), np.delete(suspect, n)) for n in np.flatnonzero(kind)]
        variance += (len(left) - 1) * float(np.var(left))
    half = 2.776 * np.sqrt(variance) / (area * (1 - area))  # the table's 97.5 % at 4 degrees of freedom
    low, high = all_compared(scores, suspect).interval()
    assert special.logit([low, high]) == pytest.approx(
        special.logit(area) + np.array([-half, half]), rel=1e-3
    )


def test_pairs_that_vary_together_have_a_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    flags, topic = np.repeat([False, True], 40), rng.normal(size=40)
    scores = np.tile(topic, 2) + 0.2 * rng.normal(size=80) + 0.3 * flags
    widths = [
        float(np.diff(all_compared(scores, flags, paired=paired).interval())[0]) for paired in (True, False)
    ]
    assert widths[0] < 0.5 * widths[1]


def test_an_area_of_1_is_not_certain() -> None:
    flags = np.repeat([False, True], [10, 20])
    low, high = all_compared(np.arange(30.0), flags).interval()
    assert (low, high) == (pytest.approx(0.025**0.1), 1.0)  # ten comparisons of prompts that share none
    assert all_compared(-np.arange(30.0), flags).interval() == (0.0, pytest.approx(1 - low))


def test_one_prompt_of_a_kind_says_nothing_of_others() -> None:
    assert all_compared(np.array([1.0, 2.0, 3.0]), np.array([False, True, False])).interval() == (0.0, 1.0)


def test_a_prompt_is_left_out_of_fits_as_well() -> None:
    """The influence of each of 3 + 3 prompts on the mean of 40 fits, counted one by one."""
    rng = np.random.default_rng(1)
    flags = np.repeat([False, True], 3)
    scores_BN, undrawn_BN = rng.normal(size=(40, 6)), rng.random((40, 6)) < 0.5
    compared = comparisons(scores_BN, undrawn_BN, flags, paired=False)
    variance = 0.0
    for kind in (False, True):
        left = []
        for out in np.flatnonzero(flags == kind):
            won = [
                float(np.sign(scores[s] - scores[c]) + 1) / 2
                for scores, undrawn in zip(scores_BN, undrawn_BN, strict=True)
                for s in range(3, 6)
                for c in range(3)
                if undrawn[out] and undrawn[s] and undrawn[c] and out not in (s, c)
            ]
            left.append(np.mean(won))
        variance += 2 * float(np.var(left))
    assert compared._variance(undrawn_BN) == pytest.approx(variance)


def test_more_draws_of_the_same_do_not_move_the_interval() -> None:
    """Without what few draws add, 100 fits would give an interval half as wide again as 1,600."""
    rng = np.random.default_rng(2)
    flags, truth = np.repeat([False, True], 30), rng.normal(size=60)
    widths = []
    for number in (100, 1600):
        undrawn_BN = rng.random((number, 60)) < 0.37
        scores_BN = truth + 0.5 * flags + rng.normal(size=(number, 60))
        low, high = comparisons(scores_BN, undrawn_BN, flags, paired=False).interval(undrawn_BN)
        widths.append(high - low)
    assert widths[0] < 1.2 * widths[1]
