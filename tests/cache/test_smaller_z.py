"""Caches with rounded or 8-bit z: what is stored, its statistics, and lenses fitted from it."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from alens import CacheRequest, FitRequest, evaluate, fit_lenses, load_lenses, write_cache
from alens.fit.settings import FitSettings
from alens.lens.record import LensRecord
from alens.rows import moments
from alens.store import encoding
from alens.store.cache_reader import Cache, open_cache

WAYS = {"rounded": {"keep_bits": 5}, "int8": {"z_dtype": "int8"}}
every_way = pytest.mark.parametrize("way", sorted(WAYS))


@pytest.fixture(scope="module")
def caches(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cache]:
    """`demo_cache` with layer 3 alone, and z stored in each of the ways. Shared."""
    stores = {"float16": open_cache(demo_cache)}
    for name, choice in WAYS.items():
        settings = dataclasses.replace(stores["float16"].plan.settings, layers=(3,), **choice)
        store = tmp_path_factory.mktemp("smaller") / name
        request = CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu")
        stores[name] = write_cache(request).cache
    return stores


@every_way
def test_z_is_what_the_encoding_makes_of_it(caches: dict[str, Cache], way: str) -> None:
    z_NHE = caches["float16"].z(3, slice(None))
    found_NHE = caches[way].z(3, slice(None))
    in_8_bits_NHE = encoding.dequantise(*encoding.quantise(z_NHE))
    expected_NHE = in_8_bits_NHE if way == "int8" else encoding.round_bits(z_NHE, 5)
    np.testing.assert_array_equal(found_NHE, expected_NHE)
    assert not np.array_equal(found_NHE, z_NHE)


@every_way
def test_statistics_are_those_of_z_as_it_is_read(caches: dict[str, Cache], way: str) -> None:
    cache, shards = caches[way], [1, 4]
    rows = np.concatenate([np.arange(shard * 1024, (shard + 1) * 1024) for shard in shards])
    rows = rows[cache.read("rows/position", rows) >= 1]
    statistics = moments.of_cache(cache, [3], shards)
    z_NHE = cache.z(3, rows).astype(np.float64)
    plain_NHE = caches["float16"].z(3, rows).astype(np.float64)
    assert statistics.num_rows == len(rows)
    error_HE = np.abs(statistics.mean_LHE[0] - z_NHE.mean(0))
    assert error_HE.max() < 1e-6
    assert error_HE.max() < 0.1 * np.abs(plain_NHE.mean(0) - z_NHE.mean(0)).max()
    for head in range(6):
        expected = np.cov(z_NHE[:, head], rowvar=False, bias=True)
        np.testing.assert_allclose(statistics.covariance_LHEE[0, head], expected, rtol=1e-5, atol=1e-6)


def fit(cache: Cache, lenses: Path) -> LensRecord:
    settings = FitSettings(layers=(3,), heads=(1, 4), batch_rows=512, eval_rows=1024, teacher="exact")
    with mock.patch.dict(os.environ):
        return fit_lenses(FitRequest(store=cache.root, lenses=lenses, settings=settings, device="cpu")).record


@pytest.fixture(scope="module")
def lenses(caches: dict[str, Cache], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Lenses fitted once from the cache of each way to store z."""
    root = tmp_path_factory.mktemp("lenses")

    def fitted(way: str) -> Path:
        if not (root / way).exists():
            fit(caches[way], root / way)
        return root / way

    return fitted


@every_way
def test_a_fit_learns_as_much_as_from_float16(lenses: Callable[[str], Path], way: str) -> None:
    plain, smaller = (load_lenses(lenses(name)).record.held_out["3"] for name in ("float16", way))
    for before, after in zip(plain, smaller, strict=True):
        assert after["kl"] == pytest.approx(before["kl"], rel=5e-3)


@every_way
def test_evaluation_reads_it_and_agrees_with_the_fit(
    lenses: Callable[[str], Path], caches: dict[str, Cache], way: str
) -> None:
    opened = load_lenses(lenses(way))
    result = evaluate(opened, caches[way])
    stated = opened.record.held_out["3"]
    assert [head.kl for head in result.lens[3]] == pytest.approx([head["kl"] for head in stated], rel=1e-6)


@every_way
def test_baselines_are_those_of_float16(
    lenses: Callable[[str], Path], caches: dict[str, Cache], way: str
) -> None:
    """Both are judged on the same rows, those that the fit held out."""
    plain, smaller = (evaluate(load_lenses(lenses(name)), caches[name]) for name in ("float16", way))
    assert plain.shards == smaller.shards == (5,)
    whole = [head.kl for head in plain.unembedding[3]]
    assert [head.kl for head in smaller.unembedding[3]] == pytest.approx(whole, rel=5e-3)
    assert smaller.mean_output.kl == pytest.approx(plain.mean_output.kl, rel=1e-6)
