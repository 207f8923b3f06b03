from dataclasses import replace
from pathlib import Path

import pytest

from alens.cache.plan import batches, shards_to_write
from alens.job.worker import Worker
from alens.store.cache_reader import open_cache
from alens.store.schema import Plan


@pytest.fixture(scope="module")
def plan(demo_cache: Path) -> Plan:
    """6 shards of 16 sequences, 8 a batch."""
    return open_cache(demo_cache).plan


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10])
def test_workers_share_all_shards_and_none_twice(plan: Plan, count: int) -> None:
    shares = [shards_to_write(plan, Worker(index=index, count=count), ()) for index in range(count)]
    assert sorted(shard for share in shares for shard in share) == list(range(6))


def test_committed_shards_are_not_written_again(plan: Plan) -> None:
    assert shards_to_write(plan, Worker(index=1, count=2), {1, 2}) == [3, 5]


@pytest.mark.parametrize(("batch_size", "sizes"), [(8, [8, 8]), (5, [5, 5, 5, 1]), (64, [16]), (1, [1] * 16)])
def test_batches_cover_a_shard_and_stay_in_it(plan: Plan, batch_size: int, sizes: list[int]) -> None:
    found = list(batches(replace(plan, settings=replace(plan.settings, batch_size=batch_size)), shard=2))
    assert [part.stop - part.start for part in found] == sizes
    assert (found[0].start, found[-1].stop) == (32, 48)
