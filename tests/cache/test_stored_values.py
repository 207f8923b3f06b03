"""The values in a cache are those that TransformerLens gives without alens: z, head outputs, weights, logits."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alens.store.cache_reader import open_cache

Places = npt.NDArray[np.int64]


@pytest.mark.parametrize("layer", range(4))
def test_stored_z_is_hook_z(demo_cache: Path, truth: Any, places: Places, layer: int) -> None:
    rows = np.random.default_rng(layer).choice(6144, 500, replace=False)
    z_NHE = open_cache(demo_cache).z(layer, rows)
    assert z_NHE.dtype == np.float16
    np.testing.assert_allclose(z_NHE, truth.z_LNHE[layer, places[rows]], rtol=2**-11 * 1.1, atol=2e-6)


def test_head_outputs_are_hook_result(demo_cache: Path, truth: Any, places: Places) -> None:
    cache = open_cache(demo_cache)
    rows = np.flatnonzero(places < 1024)[::7]
    outputs_NLHD = cache.head_outputs(rows)
    assert outputs_NLHD.shape == (len(rows), 4, 6, 192)
    expected = truth.results_LNHD[:, places[rows]].swapaxes(0, 1)
    error = np.linalg.norm(outputs_NLHD - expected, axis=-1)
    assert (error <= 2**-11 * np.linalg.norm(expected, axis=-1) * 2 + 1e-6).all()


def test_some_layers_and_heads_are_a_part_of_all(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    rows = np.array([5000, 3, 77])
    part = cache.head_outputs(rows, layers=[3, 1], heads=[5, 0])
    np.testing.assert_allclose(part, cache.head_outputs(rows)[:, [3, 1]][:, :, [5, 0]], atol=1e-6)


def test_stored_weights_are_the_models(demo_cache: Path, bridge: Any) -> None:
    cache = open_cache(demo_cache)
    np.testing.assert_array_equal(cache.weights("W_O"), bridge.W_O.detach().numpy())
    np.testing.assert_array_equal(cache.weights("W_U"), bridge.W_U.detach().numpy())
    np.testing.assert_array_equal(cache.weights("b_U"), bridge.b_U.detach().numpy())


def test_the_final_residual_gives_the_logits_back(demo_cache: Path, truth: Any, places: Places) -> None:
    cache = open_cache(demo_cache)
    rows = np.arange(0, 6144, 5)
    final_ND = cache.read("targets/final", rows).astype(np.float32)
    logits_NV = final_ND @ cache.weights("W_U") + cache.weights("b_U")
    expected_NV = truth.logits_NV[places[rows]]
    assert np.linalg.norm(logits_NV - expected_NV) < 2**-11 * np.linalg.norm(expected_NV)
