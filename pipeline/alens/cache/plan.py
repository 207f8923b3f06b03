"""Which shards a worker writes, and which sequences a shard holds. Pure: no I/O.

In: a `Plan`, a worker I of N, what is committed. Out: shard numbers and slices.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from alens.errors import RequestError
from alens.store.schema import Plan


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One of N jobs that write a cache together; each writes its own shards."""

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise RequestError(
                f"worker {self.index}/{self.count} does not exist: workers of {self.count} are 0/{self.count} to {self.count - 1}/{self.count}"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_worker(text: str) -> Worker:
    """`I/N`, as job scripts give it."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise RequestError(f"worker {text!r} is not of the form I/N, for example 0/8")
    return Worker(index=int(match[1]), count=int(match[2]))


def shards_to_write(plan: Plan, worker: Worker, committed: Collection[int]) -> list[int]:
    """The worker's shards that are not committed: every N-th, so that all workers move through the text."""
    return [shard for shard in range(worker.index, plan.num_shards, worker.count) if shard not in committed]


def batches(plan: Plan, shard: int) -> Iterator[slice]:
    """The sequences of each forward pass of a shard; a batch never spans two shards."""
    first = shard * plan.settings.sequences_per_shard
    end = first + plan.settings.sequences_per_shard
    for start in range(first, end, plan.settings.batch_size):
        yield slice(start, min(end, start + plan.settings.batch_size))
