"""Rank correlations of influences: against scipy, at their ends, and by drawn sequences."""

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr

from alens.studies.basis.causal_fidelity import (
    basic_interval,
    basis_fidelity,
    paired_at_random,
    rank_correlation,
)


def test_no_p_is_below_that_of_the_only_best_pairing() -> None:
    """With four directions in the model's order, 1 of 24 pairings does as well, and the reverse as well."""
    four = np.array([4.0, 3.0, 2.0, 1.0])
    assert paired_at_random(four, four**2, 0) == pytest.approx(2 / 24)
    assert paired_at_random(four, -four, 0) == pytest.approx(2 / 24)
    expected = permutation_test(
        (four,),
        lambda x: spearmanr(x, [4.0, 2.0, 3.0, 1.0]).statistic,
        permutation_type="pairings",
        n_resamples=np.inf,
    )
    assert paired_at_random(four, np.array([4.0, 2.0, 3.0, 1.0]), 0) == pytest.approx(expected.pvalue)
    many = np.arange(32.0)
    assert paired_at_random(many, many, 0) == pytest.approx(1 / 10_000)


def test_ranks_that_agree_and_ranks_that_are_turned() -> None:
    lens_SK = np.arange(1.0, 9.0) * np.ones((3, 1))
    for model_SK, rho in ((lens_SK**2, 1.0), (10 - lens_SK, -1.0)):
        correlation, drawn_R = rank_correlation(lens_SK, model_SK, np.full(3, 4.0), seed=0)
        assert correlation.rho == pytest.approx(rho) and (drawn_R == pytest.approx(rho))
        assert correlation.interval == pytest.approx((rho, rho))


def test_the_interval_is_of_drawn_sequences() -> None:
    generator = np.random.default_rng(0)
    lens_SK, model_SK = np.ones((6, 1)) * np.arange(10.0), generator.exponential(size=(6, 10))
    correlation, drawn_R = rank_correlation(lens_SK, model_SK, np.full(6, 1.0), seed=3)
    assert correlation.interval is not None and correlation.interval[0] < correlation.interval[1]
    assert len(np.unique(drawn_R)) > 20  # many draws, many correlations
    assert correlation.rho == pytest.approx(spearmanr(np.arange(10), model_SK.sum(0)).statistic)


def test_an_interval_takes_off_what_drawing_adds() -> None:
    """Resamples are 0.3 too high on Fisher's scale, so rho is taken to be 0.3 too high as well."""
    drawn_R = np.tanh(0.5 + 0.3 + np.linspace(-0.2, 0.2, 4001))
    low, high = basic_interval(float(np.tanh(0.5)), np.append(drawn_R, np.nan)) or (0.0, 0.0)
    assert np.arctanh([low, high]) == pytest.approx([0.01, 0.39], abs=1e-3)
    assert basic_interval(0.5, np.full(3, np.nan)) is None


def test_equal_influences_have_no_rank() -> None:
    correlation, drawn_R = rank_correlation(
        np.ones((2, 5)), np.arange(10.0).reshape(2, 5), np.ones(2), seed=0
    )
    assert correlation.rho is correlation.p_value is correlation.interval is None
    assert np.isnan(drawn_R).all()


def test_a_head_without_effect_has_no_share() -> None:
    fidelity, _ = basis_fidelity(
        "lens", np.ones((6, 2)), np.zeros((6, 2)), positions=3, groups_S=np.arange(2), seed=0
    )
    assert fidelity.model_share is None and fidelity.correlation.rho is None


def test_influences_are_means_over_rows() -> None:
    lens_AS, model_AS = np.arange(12.0).reshape(6, 2), 2 * np.arange(12.0).reshape(6, 2)
    fidelity, _ = basis_fidelity(
        "lens", lens_AS, model_AS, positions=5, groups_S=np.arange(lens_AS.shape[1]), seed=0
    )
    assert (fidelity.lens_whole, fidelity.model_first) == (pytest.approx(1 / 10), pytest.approx(42 / 10))
    assert fidelity.lens_influence == pytest.approx([0.5, 0.9, 1.3, 1.7])
