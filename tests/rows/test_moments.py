"""Means and covariances, from values, from sums and from what stage one keeps, against numpy."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import alens
from alens import open_cache
from alens.heads import Heads
from alens.rows import moment_sums, moments
from alens.rows.columns import RowReader

SITE = "resid_post"


@pytest.fixture(scope="module")
def reader(residual_cache: Path) -> RowReader:
    cache = open_cache(residual_cache)
    return RowReader(cache, Heads.grid((1, 2), (0,)), "compressed", 1, torch.device("cpu"), site=SITE)


def stored(reader: RowReader, layer: int, shards: range) -> np.ndarray:
    """(N, D) float64: rows at position 1 and later."""
    keep = [reader.cache.read_shard("rows/position", shard) >= 1 for shard in shards]
    values = [reader.cache.read_shard(f"sites/{SITE}/{layer:02d}", shard) for shard in shards]
    return np.concatenate([v[k] for v, k in zip(values, keep, strict=True)]).astype(np.float64)


def test_they_are_those_of_the_usable_rows(reader: RowReader) -> None:
    mean_1E, covariance_1EE = moments.of_site(reader, 2, range(3))
    values_NE = stored(reader, 2, range(3))
    np.testing.assert_allclose(mean_1E[0], values_NE.mean(0), atol=1e-9)
    np.testing.assert_allclose(covariance_1EE[0], np.cov(values_NE.T, bias=True), atol=1e-6)


def test_no_more_shards_are_read_than_are_needed(reader: RowReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "ROWS_PER_NUMBER", 1)  # one shard has more rows than the site is wide
    mean_1E, _ = moments.of_site(reader, 1, (1, 2, 3))
    np.testing.assert_allclose(mean_1E[0], stored(reader, 1, range(1, 2)).mean(0), atol=1e-9)


def test_statistics_are_the_moments_of_the_rows_after_position_0(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    shards, layers = [1, 4], [3, 0]
    rows = np.concatenate([np.arange(shard * 1024, (shard + 1) * 1024) for shard in shards])
    rows = rows[cache.read("rows/position", rows) >= 1]
    statistics = moments.of_cache(cache, layers, shards)
    assert statistics.num_rows == len(rows) == 2 * 16 * 63
    for at, layer in enumerate(layers):
        z_NHE = cache.z(layer, rows).astype(np.float64)
        np.testing.assert_allclose(statistics.mean_LHE[at], z_NHE.mean(0), rtol=1e-6, atol=1e-7)
        for head in range(6):
            expected = np.cov(z_NHE[:, head], rowvar=False, bias=True)
            np.testing.assert_allclose(statistics.covariance_LHEE[at, head], expected, rtol=1e-5, atol=1e-6)


def test_the_mean_of_heads_is_that_of_the_rows_after_position_0(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    heads = Heads.grouped([(0, 2), (3, 4), (3, 1)])
    for shards in ([1, 4], None):
        rows = np.concatenate([np.arange(s * 1024, (s + 1) * 1024) for s in shards or range(6)])
        rows = rows[cache.read("rows/position", rows) >= 1]
        means = moments.mean_z(cache, heads, shards)
        for layer, numbers in ((0, [2]), (3, [4, 1])):
            expected_HE = cache.z(layer, rows)[:, numbers].astype(np.float64).mean(0)
            assert means[layer].dtype == torch.float32
            np.testing.assert_allclose(means[layer], expected_HE, rtol=1e-5, atol=1e-6)


def test_the_mean_output_is_a_distribution(demo_cache: Path) -> None:
    mean_V = moments.of_cache(open_cache(demo_cache), [0], range(6)).mean_output_V
    assert mean_V.shape == (4096,)
    assert mean_V.min() >= 0
    assert mean_V.sum() == pytest.approx(1)


def test_every_way_to_the_moments_gives_the_same() -> None:
    values_NHE = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2.0
    mean_HE, covariance_HEE = moments.of_values(values_NHE)
    kept = moment_sums.MomentSums(3, 5, 1 + 40, torch.device("cpu"))
    kept.add(torch.cat([values_NHE[:1] * 9, values_NHE]).float())  # position 0 does not count
    values_HNE = values_NHE.transpose(0, 1)
    for sums in (moments.sums(values_HNE), moments.sums(values_HNE.numpy()), kept.sums()):
        mean_of_sums_HE, covariance_of_sums_HEE = moments.of_sums(*sums, 40)
        np.testing.assert_allclose(mean_of_sums_HE, mean_HE, rtol=1e-5)
        np.testing.assert_allclose(covariance_of_sums_HEE, covariance_HEE, atol=1e-5)
    for head in range(3):
        np.testing.assert_allclose(covariance_HEE[head], np.cov(values_NHE[:, head].T, bias=True))


STAY = {"studies/basis/direction_search.py"}
"""A covariance under a distribution over the vocabulary, not over rows."""


def test_covariances_are_computed_here_alone() -> None:
    root = Path(alens.__file__).parent
    computed = re.compile(
        r"(\w+)(\.mT|\.T|\.transpose\(1, 2\)|\.swapaxes\(1, 2\)) ?[@,] ?\1\b|mean\w*\[[^]]*\] \* mean|np\.cov\(|\.cov\("
    )
    places = {str(path.relative_to(root)) for path in root.rglob("*.py") if computed.search(path.read_text())}
    assert places - STAY == {"rows/moments.py", "rows/moment_sums.py"}
