"""Weights of prompts in two mean readings, and how far these are apart, against what can be counted."""

import numpy as np
import pytest

from alens.statistics import mean_readings
from alens.statistics.divergences import jensen_shannon

from .drawn_distributions import distributions


def test_shuffled_labels_keep_the_sizes_of_the_sets() -> None:
    weights = mean_readings.permuted(3, 5, 40, seed=1)
    assert weights.clean_PN.shape == (40, 8)
    assert ((weights.clean_PN > 0).sum(1) == 3).all() and ((weights.suspect_PN > 0).sum(1) == 5).all()
    assert ((weights.clean_PN > 0) != (weights.suspect_PN > 0)).all()
    assert len(np.unique(weights.clean_PN, axis=0)) > 20


def test_labels_of_pairs_are_swapped_within_them() -> None:
    weights = mean_readings.permuted(4, 4, 40, seed=1, paired=True)
    clean_PN = weights.clean_PN > 0
    assert (clean_PN[:, :4] != clean_PN[:, 4:]).all()
    assert len(np.unique(clean_PN, axis=0)) > 10


def test_resamples_draw_each_set_for_itself_or_pairs() -> None:
    weights = mean_readings.resampled(3, 5, 40, seed=1)
    assert np.allclose(weights.clean_PN.sum(1), 1) and np.allclose(weights.suspect_PN.sum(1), 1)
    assert (weights.clean_PN[:, 3:] == 0).all() and (weights.suspect_PN[:, :3] == 0).all()
    alone = mean_readings.resampled(4, 4, 40, seed=1)
    assert (alone.clean_PN[:, :4] != alone.suspect_PN[:, 4:]).any()
    pairs = mean_readings.resampled(4, 4, 40, seed=1, paired=True)
    assert (pairs.clean_PN[:, :4] == pairs.suspect_PN[:, 4:]).all()


def test_mean_readings_under_weights_are_those_of_the_weighted_means() -> None:
    readings_NV = distributions(6)
    weights = mean_readings.permuted(2, 4, 5, seed=0)
    for row, apart in enumerate(mean_readings.under(weights, readings_NV)):
        clean_V = readings_NV[weights.clean_PN[row] > 0].mean(0)
        suspect_V = readings_NV[weights.suspect_PN[row] > 0].mean(0)
        assert apart == pytest.approx(float(jensen_shannon(clean_V, suspect_V)))


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, readings_NV = mean_readings.permuted(3, 3, 7, seed=0), distributions(6)
    whole = mean_readings.under(weights, readings_NV)
    monkeypatch.setattr(mean_readings, "tile_size", lambda device: (2, 15))
    assert mean_readings.under(weights, readings_NV) == pytest.approx(whole, rel=1e-12)


def test_the_interval_takes_the_noise_of_finite_samples_off() -> None:
    """Both sets from one pool: the divergence of the pools is 0, that of samples is not."""
    held, percentile_held = 0, 0
    for seed in range(20):
        readings_NV = distributions(24, vocabulary=200, seed=100 + seed)
        observed = float(jensen_shannon(readings_NV[:12].mean(0), readings_NV[12:].mean(0)))
        drawn_P = mean_readings.under(mean_readings.resampled(12, 12, 200, seed), readings_NV)
        low, high = mean_readings.interval(observed, drawn_P)
        assert 0 <= low <= high
        held += low <= 1e-9
        percentile_held += np.quantile(drawn_P, 0.025) <= 1e-9
    assert held >= 17 and percentile_held == 0
