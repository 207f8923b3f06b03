"""Which shards a worker writes, and which sequences a shard holds. Pure: no I/O.

In: a `Plan`, a worker I of N, what is committed. Out: shard numbers and slices.
"""

from collections.abc import Collection, Iterator

from alens.job.worker import Worker
from alens.store.schema import Plan


def shards_to_write(plan: Plan, worker: Worker, committed: Collection[int]) -> list[int]:
    """The worker's shards that are not committed: every N-th, so that all workers move through the text."""
    return [shard for shard in range(worker.index, plan.num_shards, worker.count) if shard not in committed]


def batches(plan: Plan, shard: int) -> Iterator[slice]:
    """The sequences of each forward pass of a shard; a batch never spans two shards."""
    first = shard * plan.settings.sequences_per_shard
    end = first + plan.settings.sequences_per_shard
    for start in range(first, end, plan.settings.batch_size):
        yield slice(start, min(end, start + plan.settings.batch_size))
