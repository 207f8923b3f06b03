"""ROC curves and areas, against pairs that are counted."""

import numpy as np
import pytest

from alens.studies.comparison import roc


def counted(scores: np.ndarray, suspect: np.ndarray) -> float:
    wins = [(s > c) + 0.5 * (s == c) for s in scores[suspect] for c in scores[~suspect]]
    return float(np.mean(wins))


def drawn(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    suspect = np.arange(number) % 3 == 0
    return np.round(rng.normal(size=number) + suspect, 1), suspect  # rounded: some are equal


def test_the_area_is_the_share_of_pairs_and_lies_under_the_curve() -> None:
    scores, suspect = drawn(60, 0)
    found = roc.separation([scores], [suspect], [scores > 0.5], seed=0)
    assert found.auc == pytest.approx(counted(scores, suspect))
    assert np.trapezoid(found.true_positive_rate, found.false_positive_rate) == pytest.approx(found.auc)
    assert found.low < found.auc < found.high


def test_the_curve_is_that_of_every_threshold() -> None:
    scores, suspect = np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False])
    fpr, tpr = roc.curve(scores, suspect)
    assert fpr.tolist() == [0.0, 0.0, 0.5, 1.0] and tpr.tolist() == [0.0, 0.5, 1.0, 1.0]


def test_pairs_of_different_fits_are_not_compared() -> None:
    one, other = drawn(30, 1), drawn(30, 2)
    found = roc.area([one[0], other[0] + 100], [one[1], other[1]])
    expected = (counted(*one) + counted(*other)) / 2
    assert found == pytest.approx(expected)


def test_a_fit_that_judged_one_kind_alone_is_left_out() -> None:
    one, clean = drawn(30, 1), np.zeros(3)
    flags = np.zeros(3, bool)
    assert roc.area([one[0], clean], [one[1], flags]) == pytest.approx(counted(*one))
    with pytest.raises(ValueError, match="no fit judged both"):
        roc.area([clean], [flags])


def test_rates_that_too_few_prompts_cannot_tell_are_none() -> None:
    def found(number: int) -> roc.Separation:
        scores = np.arange(2.0 * number)
        return roc.separation([scores], [scores >= number], None, seed=0)

    assert (found(19).tpr_at_1_percent, found(19).tpr_at_5_percent) == (None, None)
    assert (found(20).tpr_at_1_percent, found(20).tpr_at_5_percent) == (None, 1.0)
    assert (found(100).tpr_at_1_percent, found(100).tpr_at_5_percent) == (1.0, 1.0)
    assert found(20).balanced_accuracy is None and found(20).auc == 1.0


def test_the_true_positive_rate_is_read_at_or_below_the_false_one() -> None:
    clean, suspect = np.arange(20.0), np.array([19.5, 18.5, 17.5, 0.5])
    scores, flags = np.concatenate([clean, suspect]), np.repeat([False, True], [20, 4])
    found = roc.separation([scores], [flags], [scores > 18.2], seed=0)
    assert found.tpr_at_5_percent == 0.5  # one clean prompt of twenty is above 18.5, and none above 19.5
    assert found.balanced_accuracy == pytest.approx((2 / 4 + 19 / 20) / 2)


def test_scores_that_are_all_equal_are_chance() -> None:
    found = roc.separation([np.zeros(20)], [np.arange(20) % 2 == 0], None, seed=0)
    assert (found.auc, found.low, found.high) == (0.5, 0.5, 0.5)
    assert found.false_positive_rate == [0.0, 1.0]
