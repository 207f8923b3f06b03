"""How far a cache is, and which workers to submit again."""

from pathlib import Path

import pytest

from alens.cache.write_cache import shards_to_write
from alens.job.worker import Worker
from alens.store.cache_reader import open_cache
from alens.store.status import array_specification, cache_status, workers_to_run


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((), ""),
        ((0,), "0"),
        ((3, 17, 42), "3,17,42"),
        ((3, 17, 42, 43, 44, 45), "3,17,42-45"),
        (range(8), "0-7"),
        ((0, 1, 3, 4), "0-1,3-4"),
    ],
)
def test_array_specifications(numbers: tuple[int, ...], expected: str) -> None:
    assert array_specification(numbers) == expected


def test_workers_are_those_whose_share_holds_what_is_missing(demo_cache: Path) -> None:
    plan = open_cache(demo_cache).plan
    for count in (1, 2, 4, 6, 9):
        shares = {i: shards_to_write(plan, Worker(index=i, count=count), ()) for i in range(count)}
        for missing in ((), (range(1),), (range(1, 2), range(5, 6)), (range(6),)):
            shards = {shard for run in missing for shard in run}
            expected = tuple(i for i, share in shares.items() if set(share) & shards)
            assert workers_to_run(missing, count) == expected


def test_a_sealed_cache_has_nothing_to_run(demo_cache: Path) -> None:
    status = cache_status(open_cache(demo_cache))
    assert (status.shards_done, status.shards_planned, status.missing, status.num_workers) == (6, 6, (), 1)
    [worker] = status.workers
    assert (worker.worker, worker.shards) == ("0/1", 6)
    assert worker.rows_per_second > 0
