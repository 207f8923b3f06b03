"""A cache of moments alone: its sums beside those of rows, how it is written, and what refuses it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from alens import CacheRequest, open_cache, write_cache
from alens.cache import shard_moments
from alens.errors import RequestError
from alens.heads import Heads
from alens.job.worker import Worker
from alens.lens.closed_form import closed_form
from alens.rows import moments
from alens.store.schema import CacheSettings
from alens.store.verify import verify_cache

from ..conftest import DEMO_SETTINGS, Run
from ..outcomes import refusal

SETTINGS = dataclasses.replace(DEMO_SETTINGS, exact_teacher=False, moments_only=True, layers=(0, 3))
HEADS, TRAIN = (1, 4), (0, 1, 2, 3)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text of `demo_cache`, two layers, moments alone."""
    store = tmp_path_factory.mktemp("moments") / "cache"
    write_cache(CacheRequest(model="demo", corpus="demo", store=store, settings=SETTINGS, device="cpu"))
    return store


def test_its_sums_are_those_of_the_rows(store: Path, demo_cache: Path) -> None:
    alone, rows = open_cache(store), open_cache(demo_cache)
    assert np.array_equal(np.asarray(alone.tokens), np.asarray(rows.tokens))
    mine = moments.cross_of_cache(alone, Heads.grid((0, 3), HEADS), TRAIN)
    theirs = moments.cross_of_rows(rows, Heads.grid((0, 3), HEADS), TRAIN, 10**6)
    for layer, expected in theirs.items():
        given = mine[layer]
        assert given.num_rows == expected.num_rows == 4 * 16 * 63
        for name in ("mean_HE", "covariance_HEE", "cross_HED", "mean_final_D", "variance_final_D"):
            one, other = getattr(given, name), getattr(expected, name)
            # Rows are stored as float16.
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-3 * np.abs(other).max(), err_msg=name)
    closed = [closed_form(cache, Heads.grid((3,), HEADS), TRAIN)[3] for cache in (alone, rows)]
    np.testing.assert_allclose(closed[0].r2_H, closed[1].r2_H, atol=1e-4)


def test_the_mean_output_is_that_of_some_rows(
    store: Path, demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = open_cache(demo_cache)
    exact_V = rows.log_mean_output(TRAIN)
    np.testing.assert_allclose(open_cache(store).log_mean_output(TRAIN), exact_V, atol=1e-3)  # few: all count
    monkeypatch.setattr(shard_moments, "ENOUGH_ROWS", 1)
    request = CacheRequest(model="demo", corpus="demo", store=tmp_path / "c", settings=SETTINGS, device="cpu")
    write_cache(request)
    some = open_cache(request.store)
    assert some.summed("stats/output", TRAIN).sum() == pytest.approx(4 * 16 * 63)
    some_V = some.log_mean_output(TRAIN)
    assert 0.001 < (np.exp(exact_V) * (exact_V - some_V)).sum() < 0.1


def test_two_workers_and_a_resumed_one_write_the_same(store: Path, tmp_path: Path) -> None:
    request = CacheRequest(
        model="demo",
        corpus="demo",
        store=tmp_path / "c",
        settings=SETTINGS,
        device="cpu",
        worker=Worker(index=0, count=2),
    )
    write_cache(request)
    assert not open_cache(request.store).sealed
    write_cache(dataclasses.replace(request, worker=Worker()))
    assert open_cache(request.store).fingerprint == open_cache(store).fingerprint
    assert verify_cache(request.store).whole
    damaged = request.store / "arrays.zarr/stats/attn.z/03/cross/c.2.0.0.0"
    content = bytearray(damaged.read_bytes())
    content[100] ^= 1
    damaged.write_bytes(content)
    (finding,) = verify_cache(request.store).findings
    assert finding.path.endswith("03/cross/c.2.0.0.0")


def test_what_needs_rows_refuses_it_in_a_line(
    store: Path, demo_lenses: Path, tmp_path: Path, run_alens: Run
) -> None:
    line = f"{store} was cached with --moments-only: take a cache with rows"
    for command in (
        ("fit", store, tmp_path / "lenses"),
        ("eval", demo_lenses, store, "--layers", 3),
        ("fidelity", store),
        ("basis", demo_lenses, store, "--layers", 3),
        ("transfer", demo_lenses, store, "--layers", 3),
    ):
        assert refusal(run_alens(*command), after_log=True) == line, command
    with pytest.raises(RequestError, match="cached with --moments-only"):
        open_cache(store).z(3, slice(0, 4))


def test_info_and_plan_say_what_it_holds(store: Path, run_alens: Run, small_writes: None) -> None:
    shown = run_alens("info", store).stdout
    assert (
        "z: only sums over each shard\ntargets: none, only the mean output\neffects: not measured\nsize: "
        in shown
    )
    assert ", 0 bytes a row\n" in shown
    options = ("--seq-len", 64, "--max-rows", 6144, "--rows-per-shard", 1024, "--layers", "0,3")
    planned = run_alens("plan", "demo", "demo", *options, "--moments-only", "--probe-seconds", 0.2, "--json")
    body = json.loads(planned.stdout)
    arrays = {array["name"]: array for array in body["bytes"]["arrays"]}
    assert "sites/attn.z/03" not in arrays and body["passes"] is None
    assert arrays["stats/attn.z/03/cross"]["bytes"] == pytest.approx(6 * 2 * 6 * 32 * 192, rel=0.01)
    assert run_alens("plan", "demo", "demo", *options, "--moments-only", "--probe-seconds", 0.2).code == 0


@pytest.mark.parametrize(
    ("given", "rows"),
    [({}, 16_384), ({"max_rows": 10**6}, 16_384), ({"moments_only": True}, 65_536),
     ({"moments_only": True, "max_rows": 400_000}, 49_920), ({"moments_only": True, "max_rows": 100_000}, 16_384)],
)  # fmt: skip
def test_its_shards_are_larger_by_default(given: dict[str, int], rows: int) -> None:
    assert CacheSettings(**given).rows_per_shard == rows


def test_settings_about_rows_are_refused() -> None:
    with pytest.raises(RequestError, match="exact_teacher is about rows, and moments_only stores none"):
        CacheSettings(moments_only=True, exact_teacher=True)
    assert CacheSettings(moments_only=False) == CacheSettings()
