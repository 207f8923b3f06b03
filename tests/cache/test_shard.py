"""A shard: its batches, where its rows come from, and its sums."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import write_cache
from alens.cache import shard as shards
from alens.store.cache_reader import Cache, open_cache


@pytest.fixture(scope="module")
def cache(demo_cache: Path) -> Cache:
    return open_cache(demo_cache)


def test_every_position_of_every_sequence_is_a_row_once(cache: Cache) -> None:
    sequence = cache.read("rows/sequence", slice(None)).astype(int)
    position = cache.read("rows/position", slice(None)).astype(int)
    assert sorted(sequence * 64 + position) == list(range(6144))


def test_position_0_is_stored(cache: Cache) -> None:
    assert (cache.read("rows/position", slice(None)) == 0).sum() == 96


def test_a_rows_token_is_the_one_at_its_place(cache: Cache, demo_cache: Path) -> None:
    tokens_BT = np.load(demo_cache / "tokens.npy")
    sequence, position = cache.read("rows/sequence", slice(None)), cache.read("rows/position", slice(None))
    np.testing.assert_array_equal(cache.read("rows/token", slice(None)), tokens_BT[sequence, position])


def test_a_shard_holds_its_own_sequences_in_mixed_order(cache: Cache) -> None:
    for shard in range(6):
        sequence = cache.read_shard("rows/sequence", shard)
        assert set(sequence) == set(range(16 * shard, 16 * (shard + 1)))
        assert len(np.unique(sequence[:64])) > 8


def test_shards_are_mixed_each_in_its_own_order(cache: Cache) -> None:
    orders = [
        cache.read_shard("rows/sequence", shard).astype(int) % 16 * 64
        + cache.read_shard("rows/position", shard)
        for shard in (0, 1)
    ]
    assert not np.array_equal(*orders)


@pytest.mark.parametrize("layer", [0, 3])
def test_sums_are_those_of_the_stored_rows_after_position_0(cache: Cache, layer: int) -> None:
    for shard in (0, 5):
        counted = cache.read_shard("rows/position", shard) >= 1
        z_NHE = cache.read_shard(f"sites/attn.z/{layer:02d}", shard)[counted].astype(np.float64)
        assert counted.sum() == 16 * 63
        np.testing.assert_allclose(
            cache.read_shard(f"stats/attn.z/{layer:02d}/sum", shard)[0], z_NHE.sum(0), rtol=1e-6, atol=1e-4
        )
        np.testing.assert_allclose(
            cache.read_shard(f"stats/attn.z/{layer:02d}/outer", shard)[0],
            np.einsum("nhe,nhf->hef", z_NHE, z_NHE),
            rtol=1e-5,
            atol=1e-3,
        )


def test_the_summed_output_counts_each_row_after_position_0(cache: Cache) -> None:
    for shard in range(6):
        assert cache.read_shard("stats/output", shard).sum() == pytest.approx(16 * 63, rel=1e-5)


def test_only_the_chosen_layers_are_stored(small_cache: Path) -> None:
    cache = open_cache(small_cache)
    assert cache.plan.layers == (0, 2)
    assert sorted(p.name for p in (small_cache / "arrays.zarr/sites/attn.z").glob("[0-9]*")) == ["00", "02"]


def test_the_row_order_changes_nothing_but_the_order(small_request: Any, tmp_path: Path) -> None:
    """Another seed gives a shard other sequences and draws; the values of a token are the same."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"This is row {i * i} of a text that is taken whole." for i in range(60)))
    read = []
    for seed in (0, 1):
        store = tmp_path / f"store {seed}"
        write_cache(small_request(store, corpus=str(text), settings={"seed": seed, "max_rows": None}))
        cache = open_cache(store)
        tokens_BT = np.load(store / "tokens.npy")
        first = min(range(len(tokens_BT)), key=lambda row: tokens_BT[row].tolist())
        rows = np.flatnonzero(cache.read("rows/sequence", slice(None)) == first)
        rows = rows[np.argsort(cache.read("rows/position", rows))]
        read.append((cache.z(2, rows), cache.targets(rows)))
    (z, targets), (other_z, other_targets) = read
    np.testing.assert_allclose(z, other_z, rtol=2**-10, atol=1e-5)
    np.testing.assert_allclose(targets.logsumexp_N, other_targets.logsumexp_N, atol=1e-4)
    assert not np.array_equal(targets.tail_ids_NM, other_targets.tail_ids_NM)


def test_a_shard_is_a_function_of_the_plan_and_its_number(demo_cache: Path) -> None:
    from alens.model import models

    cache = open_cache(demo_cache)
    model = models.load(models.find("demo"), dtype="float32", device="cpu")
    again = shards.compute(model, cache.plan, cache.tokens, 3, lambda _: None)
    for name, values in again.items():
        np.testing.assert_array_equal(values, cache.read_shard(name, 3), err_msg=name)


def test_after_batch_hears_of_every_batch(demo_cache: Path) -> None:
    from alens.model import models

    cache = open_cache(demo_cache)
    plan = dataclasses.replace(cache.plan, settings=dataclasses.replace(cache.plan.settings, batch_size=6))
    heard: list[int] = []
    shards.compute(
        models.load(models.find("demo"), dtype="float32", device="cpu"), plan, cache.tokens, 1, heard.append
    )
    assert heard == [384, 768, 1024]


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8, 8]), (5, [5, 5, 5, 1]), (64, [16]), (1, [1] * 16)])
def test_batches_cover_a_shard_and_stay_in_it(cache: Cache, batch_size: int, sizes: list[int]) -> None:
    """A shard of the demo holds 16 sequences."""
    settings = dataclasses.replace(cache.plan.settings, batch_size=batch_size)
    plan = dataclasses.replace(cache.plan, settings=settings)
    slices = list(shards.batches(plan, shard=2))
    assert [part.stop - part.start for part in slices] == sizes
    assert (slices[0].start, slices[-1].stop) == (32, 48)
