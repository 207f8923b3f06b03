"""ROC curves and figures from them."""

import numpy as np
import pytest

from alens.statistics.area import Comparisons, comparisons
from alens.statistics.separation import Separation, curve, separation


def compared(scores: np.ndarray, suspect: np.ndarray) -> Comparisons:
    return comparisons(scores[None], np.ones((1, len(scores)), bool), suspect, paired=False)


def separated(scores: np.ndarray, suspect: np.ndarray, alarms: np.ndarray | None = None) -> Separation:
    return separation([scores], [suspect], None if alarms is None else [alarms], compared(scores, suspect))


def test_the_area_lies_under_the_curve() -> None:
    rng = np.random.default_rng(0)
    suspect = np.arange(60) % 3 == 0
    scores = np.round(rng.normal(size=60) + suspect, 1)  # rounded: some are equal
    separated_prompts = separated(scores, suspect)
    assert np.trapezoid(
        separated_prompts.true_positive_rate, separated_prompts.false_positive_rate
    ) == pytest.approx(separated_prompts.auc)
    assert (
        separated_prompts.low < separated_prompts.auc < separated_prompts.high
        and separated_prompts.interval_over == "judged prompts"
    )


def test_the_curve_is_that_of_every_threshold() -> None:
    scores, suspect = np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])
    fpr, tpr = curve(scores, suspect)
    assert fpr.tolist() == [0.0, 0.0, 0.5, 1.0] and tpr.tolist() == [0.0, 0.5, 1.0, 1.0]


def test_rates_that_too_few_prompts_cannot_tell_are_none() -> None:
    def of_each_kind(number: int) -> Separation:
        scores = np.arange(2.0 * number)
        return separated(scores, scores >= number)

    assert (of_each_kind(19).tpr_at_1_percent, of_each_kind(19).tpr_at_5_percent) == (None, None)
    assert (of_each_kind(20).tpr_at_1_percent, of_each_kind(20).tpr_at_5_percent) == (None, 1.0)
    assert (of_each_kind(100).tpr_at_1_percent, of_each_kind(100).tpr_at_5_percent) == (1.0, 1.0)
    assert of_each_kind(20).balanced_accuracy is None and of_each_kind(20).auc == 1.0


def test_the_true_positive_rate_is_read_at_or_below_the_false_one() -> None:
    clean, suspect = np.arange(20.0), np.array([19.5, 18.5, 17.5, 0.5])
    scores, flags = np.concatenate([clean, suspect]), np.repeat([False, True], [20, 4])
    separated_prompts = separated(scores, flags, scores > 18.2)
    assert (
        separated_prompts.tpr_at_5_percent == 0.5
    )  # one clean prompt of twenty is above 18.5, and none above 19.5
    assert separated_prompts.balanced_accuracy == pytest.approx((2 / 4 + 19 / 20) / 2)


def test_scores_that_are_all_equal_are_chance() -> None:
    separated_prompts = separated(np.zeros(20), np.arange(20) % 2 == 0)
    assert (separated_prompts.auc, separated_prompts.low, separated_prompts.high) == (0.5, 0.5, 0.5)
    assert separated_prompts.false_positive_rate == [0.0, 1.0]
