"""Mean and covariance of a site that stage one counts no statistics of."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.rows import moments
from alens.rows.columns import RowReader

SITE = "resid_post"


@pytest.fixture(scope="module")
def reader(residual_cache: Path) -> RowReader:
    cache = open_cache(residual_cache)
    return RowReader(cache, (1, 2), (0,), "compressed", 1, torch.device("cpu"), site=SITE)


def stored(reader: RowReader, layer: int, shards: range) -> np.ndarray:
    """(N, D) float64: rows at position 1 and later."""
    keep = [reader.cache.read_shard("rows/position", shard) >= 1 for shard in shards]
    values = [reader.cache.read_shard(f"sites/{SITE}/{layer:02d}", shard) for shard in shards]
    return np.concatenate([v[k] for v, k in zip(values, keep, strict=True)]).astype(np.float64)


def test_they_are_those_of_the_usable_rows(reader: RowReader) -> None:
    mean_1E, covariance_1EE = moments.site_moments(reader, 2, range(3))
    values_NE = stored(reader, 2, range(3))
    np.testing.assert_allclose(mean_1E[0], values_NE.mean(0), atol=1e-9)
    np.testing.assert_allclose(covariance_1EE[0], np.cov(values_NE.T, bias=True), atol=1e-6)


def test_no_more_shards_are_read_than_are_needed(reader: RowReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "ROWS_PER_NUMBER", 1)  # one shard has more rows than the site is wide
    mean_1E, _ = moments.site_moments(reader, 1, (1, 2, 3))
    np.testing.assert_allclose(mean_1E[0], stored(reader, 1, range(1, 2)).mean(0), atol=1e-9)
