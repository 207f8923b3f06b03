"""Sums of z with the final residual, as stage one keeps them: against the stored rows, and in the closed form."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import CacheRequest, open_cache, write_cache
from alens.errors import DamageError, RequestError
from alens.heads import Heads
from alens.lens.closed_form import closed_form
from alens.rows import moments
from alens.store.cache_reader import Cache
from alens.store.final_moments import resolved
from alens.store.schema import CacheSettings
from alens.store.verify import verify_cache

from ..damage import flip

SETTINGS = CacheSettings(
    seq_len=32, rows_per_shard=512, max_rows=1536, layers=(0, 3), top_k=4, tail_samples=4, batch_size=4, exact_teacher=True
)  # fmt: skip
FORMS = {"plain": {}, "int8": {"z_dtype": "int8"}, "rounded": {"keep_bits": 4}}
HEADS = [1, 4]


def write(store: Path, settings: CacheSettings) -> Cache:
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=settings, device="cpu"))
    return open_cache(store)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cache]:
    root = tmp_path_factory.mktemp("moments")
    return {
        name: write(root / name, dataclasses.replace(SETTINGS, final_moments=True, **changed))
        for name, changed in FORMS.items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_they_are_those_of_the_stored_rows_after_position_0(caches: dict[str, Cache], form: str) -> None:
    cache = caches[form]
    for layer, shards in ((0, [1]), (3, [0, 2])):
        ours = moments.cross_of_cache(cache, Heads.grid([layer], HEADS), shards)[layer]
        rows = moments.cross_of_rows(cache, Heads.grid([layer], HEADS), shards, 10**6)[layer]
        assert ours.num_rows == rows.num_rows == len(shards) * 16 * 31
        np.testing.assert_allclose(ours.mean_HE, rows.mean_HE, atol=1e-5)
        np.testing.assert_allclose(ours.mean_final_D, rows.mean_final_D, atol=1e-3)
        np.testing.assert_allclose(ours.variance_final_D, rows.variance_final_D, rtol=2e-3)
        np.testing.assert_allclose(ours.covariance_HEE, rows.covariance_HEE, atol=1e-4)
        largest = np.abs(rows.cross_HED).max((1, 2), keepdims=True)
        np.testing.assert_allclose(ours.cross_HED / largest, rows.cross_HED / largest, atol=1e-3)


def test_the_closed_form_comes_from_them(caches: dict[str, Cache], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = moments.cross_of_rows(caches["plain"], Heads.grid([3], HEADS), [0, 1], 10**6)[3]
    monkeypatch.setattr(moments, "cross_of_rows", None)
    ours = closed_form(caches["plain"], Heads.grid([0, 3], HEADS), [0, 1])[3]
    assert ours.num_rows == rows.num_rows and ours.T_HED.shape == (2, 32, 192)
    assert (ours.r2_H > 0.01).all()


def test_damage_is_named(caches: dict[str, Cache], tmp_path: Path) -> None:
    cache = write(tmp_path / "store", dataclasses.replace(SETTINGS, max_rows=512, final_moments=True))
    assert verify_cache(cache.root).whole
    flip(cache.root / "arrays.zarr/stats/attn.z/03/cross/c.0.0.0.0")
    with pytest.raises(DamageError, match=r"attn.z/03/cross/c.0.0.0.0"):
        closed_form(open_cache(cache.root), Heads.grid([3], HEADS), [0])
    assert "attn.z/03/cross/c.0.0.0.0" in str(verify_cache(cache.root).to_json())


def test_they_are_kept_where_they_take_a_tenth_of_z_at_most() -> None:
    def keeps(**changed: object) -> bool | None:
        return resolved(dataclasses.replace(SETTINGS, max_rows=None, **changed), 192).final_moments

    assert keeps(rows_per_shard=1920) is True and keeps(rows_per_shard=1888) is None
    assert keeps(rows_per_shard=1920, z_dtype="int8") is None
    assert keeps(rows_per_shard=1920, final_moments=False) is None
    assert keeps(final_moments=True) is True


def test_a_cache_from_before_them_is_gone_on_with(tmp_path: Path) -> None:
    """Its plan does not have the field, which makes no difference to its identity."""
    without = dataclasses.replace(SETTINGS, rows_per_shard=2048, max_rows=2048, layers=(0,))
    cache = write(tmp_path / "store", dataclasses.replace(without, final_moments=False))
    assert cache.plan.settings.final_moments is None and b'"final_moments": null' in cache.plan.to_json()
    assert write(tmp_path / "store", without).plan.identity == cache.plan.identity
    with pytest.raises(RequestError, match=r"final_moments is True \(the cache: False\)"):
        write(tmp_path / "store", dataclasses.replace(without, final_moments=True))
    assert write(tmp_path / "new", without).plan.settings.final_moments is True


def test_info_says_where_a_lens_is_worth_its_fit(run_alens: Any, caches: dict[str, Cache]) -> None:
    cache = caches["plain"]
    r2_H = closed_form(cache, Heads.grid([3], range(6)), cache.shards)[3].r2_H
    best = f"3.{r2_H.argmax()} {r2_H.max():.3f}"
    lines = run_alens("info", cache.root, "--all").stdout.splitlines()
    assert any(line.startswith("  1,488 rows; best: ") for line in lines)
    assert any(line.startswith("  layer  3  mean 0.") and f"best {best}" in line for line in lines)
    body = json.loads(run_alens("info", cache.root, "--json").stdout)
    assert [entry["layer"] for entry in body["r2"]] == [0, 3]
    np.testing.assert_allclose(body["r2"][1]["r2"], r2_H, atol=1e-5)
