"""Whitened coordinates, and the way back."""

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.lens.whitening import Whitening
from alens.rows.moments import of_cache

H, N, E, V = 3, 400, 5, 11


def badly_scaled_z(seed: int = 0) -> torch.Tensor:
    """(N, H, E) float16 with a condition number of about 10^6 in variance."""
    random = np.random.default_rng(seed)
    mix_EE = random.normal(size=(E, E)) * np.logspace(0, -3, E)[:, None]
    return torch.from_numpy((random.normal(size=(N, H, E)) @ mix_EE + 0.5).astype(np.float32))


def moments(z_NHE: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    z_HNE = z_NHE.double().transpose(0, 1).numpy()
    return z_HNE.mean(1), np.stack([np.cov(z_NE.T, bias=True) for z_NE in z_HNE])


def covariance(white_HNE: torch.Tensor) -> np.ndarray:
    return np.stack([np.cov(z_NE.T, bias=True) for z_NE in white_HNE.double().numpy()])


def test_white_z_has_zero_mean_and_identity_covariance() -> None:
    z_NHE = badly_scaled_z()
    white_HNE = Whitening.from_moments(*moments(z_NHE)).white(z_NHE)
    np.testing.assert_allclose(white_HNE.mean(1), 0, atol=2e-3)
    np.testing.assert_allclose(covariance(white_HNE), np.broadcast_to(np.eye(E), (H, E, E)), atol=5e-3)


def test_statistics_of_a_cache_whiten_its_own_rows(demo_cache) -> None:
    cache = open_cache(demo_cache)
    statistics = of_cache(cache, [2], cache.shards)
    rows = cache.read("rows/position", slice(None)) > 0
    z_NHE = torch.from_numpy(cache.z(2, slice(None))[rows])
    white_HNE = Whitening.from_moments(statistics.mean_LHE[0], statistics.covariance_LHEE[0]).white(z_NHE)
    np.testing.assert_allclose(white_HNE.double().mean(1), 0, atol=1e-3)
    heads, d_head = white_HNE.shape[0], white_HNE.shape[2]
    np.testing.assert_allclose(
        covariance(white_HNE), np.broadcast_to(np.eye(d_head), (heads, d_head, d_head)), atol=1e-2
    )


def test_whitening_turns_z_as_little_as_it_can() -> None:
    """ZCA: the scale is symmetric, so a head keeps its own axes."""
    scale_HEE = Whitening.from_moments(*moments(badly_scaled_z())).scale_HEE
    torch.testing.assert_close(scale_HEE, scale_HEE.transpose(1, 2), rtol=1e-4, atol=1e-3)


def test_folded_lenses_give_the_same_logits_on_z() -> None:
    z_NHE, random = badly_scaled_z(), torch.Generator().manual_seed(0)
    whitening = Whitening.from_moments(*moments(z_NHE))
    weight_HEV, bias_HV = (
        torch.randn(H, E, V, generator=random, dtype=torch.float32),
        torch.randn(H, V, generator=random),
    )
    expected = torch.bmm(whitening.white(z_NHE), weight_HEV) + bias_HV[:, None]
    folded_HEV, folded_bias_HV = whitening.fold(weight_HEV, bias_HV)
    logits = torch.bmm(z_NHE.transpose(0, 1), folded_HEV) + folded_bias_HV[:, None]
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize("value", [0.0, 0.3, 1000.0])
def test_a_head_that_never_changes_stays_finite(value: float) -> None:
    z_NHE = badly_scaled_z().half()
    z_NHE[:, 1] = value
    whitening = Whitening.from_moments(*moments(z_NHE))
    white_HNE = whitening.white(z_NHE)
    assert float(white_HNE[1].abs().max()) < 100
    folded = whitening.fold(torch.ones(H, E, V), torch.zeros(H, V))
    assert all(bool(part.isfinite().all()) for part in (white_HNE, *folded))


def test_a_direction_without_variance_is_not_blown_up() -> None:
    z_NHE = badly_scaled_z()
    z_NHE[:, :, 2] = 0.25
    white_HNE = Whitening.from_moments(*moments(z_NHE)).white(z_NHE)
    covariances = covariance(white_HNE)
    kept = [0, 1, 3, 4]
    np.testing.assert_allclose(
        covariances[:, kept][:, :, kept], np.broadcast_to(np.eye(4), (H, 4, 4)), atol=2e-2
    )
    assert np.abs(covariances[:, 2]).max() < 1e-2
