"""The rows that figures are measured on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alens import open_cache
from alens.errors import RequestError
from alens.fidelity.sample import RowSample, spread
from alens.store.cache_reader import Cache


def test_rows_come_from_all_over_the_cache_and_never_from_position_0(demo: Cache) -> None:
    sample = RowSample(demo, 600, seed=0)
    assert sample.shards == (0, 1, 2, 3, 4, 5)
    assert 560 < len(sample) <= 600
    rows = sample.row_numbers()
    assert len(set(rows.tolist())) == len(rows) == len(sample)
    assert (rows % 64 > 0).all()
    assert set((rows // 1024).tolist()) == {0, 1, 2, 3, 4, 5}


def test_every_array_is_read_at_the_same_rows(demo: Cache) -> None:
    sample = RowSample(demo, 300, seed=1)
    rows, T = sample.row_numbers(), demo.plan.settings.seq_len
    tokens = demo.tokens[rows // T, rows % T]
    assert np.array_equal(sample.read("rows/token"), tokens)
    everywhere = demo.read("rows/sequence", slice(None)).astype(int) * T + demo.read(
        "rows/position", slice(None)
    )
    at = [int(np.flatnonzero(everywhere == row)[0]) for row in rows]
    assert np.array_equal(sample.z(3), demo.z(3, np.array(at)))
    assert np.array_equal(sample.targets().tail_ids_NM, demo.targets(np.array(at)).tail_ids_NM)


def test_the_seed_chooses_the_rows(demo: Cache) -> None:
    first, again, other = (RowSample(demo, 100, seed).row_numbers() for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_more_rows_than_there_are_is_all_of_them(demo: Cache) -> None:
    assert len(RowSample(demo, 10**6, seed=0)) == 6 * 16 * 63


def test_a_cache_without_a_shard_is_refused(demo_cache: Path, copy_of: Any) -> None:
    store = copy_of(demo_cache)
    for record in ("MANIFEST.json", *(f"commits/{shard:06d}.json" for shard in range(6))):
        (store / record).unlink()
    with pytest.raises(RequestError, match="has no committed shard yet: run `alens cache` first"):
        RowSample(open_cache(store), 10, seed=0)


def test_spread_takes_both_ends() -> None:
    assert spread(range(10), 4) == (0, 3, 6, 9)
    assert spread((3, 5, 8), 7) == (3, 5, 8)
    assert spread(range(5), 1) == (2,)
