"""How much of a cache is written, from its commit records alone, and which workers to submit again.

In: an open cache. Out: counts, rates by worker, and array specifications for schedulers. Only the records are
read, and of very many a sample.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from alens.errors import DamageError
from alens.job.progress import Report, counted, silent
from alens.result import Result, plain
from alens.store.cache_reader import Cache

NOTED = {"rows": 0, "seconds": 0.0, "finished": 0.0}
"""Fields that a record may lack, with their defaults."""

MOST_READ = 2048
"""Records that are read to say how far a cache is; of more, as many are drawn."""
NEWEST = 256
"""So many of these are the last shards: workers move through the text, so they tell who works now."""
SOFTWARE = ("alens", "torch", "transformer-lens", "zarr")


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """What one worker has committed."""

    worker: str
    """I/N, as the worker was started."""
    shards: int
    """Those whose records were read."""
    rows_per_second: float
    """Measured by the worker, from shard to shard."""
    last_commit: float
    """Seconds since 1970, by the clock of the worker's host."""


@dataclass(frozen=True, kw_only=True)
class CacheStatus(Result):
    """How far a cache is."""

    shards_done: int
    shards_planned: int
    missing: tuple[range, ...]
    """Shards that are planned and not committed, as stretches: there may be far more of them than committed ones."""
    workers: tuple[WorkerStatus, ...]
    """In the order of I, then of N."""
    num_workers: int
    """N of the worker that committed last; 1 when none has committed."""
    bytes: int
    """Bytes of all committed shards, from those whose records were read."""
    records_read: int
    """As many as shards are committed, or a sample of them."""
    software: tuple[str, ...]
    """The versions that wrote the shards, each combination once."""

    def headline(self) -> str:
        """How many shards are committed, and by how many workers."""
        return (
            f"{self.shards_done:,} of {self.shards_planned:,} shards committed, {self.bytes:,} bytes, "
            f"{len(self.workers)} workers"
        )

    def to_json(self) -> dict[str, Any]:
        """All numbers; missing shards as the stretches that an array specification has, such as `3,17,42-45`."""
        return {
            "shards_done": self.shards_done,
            "shards_planned": self.shards_planned,
            "missing": specification_of(self.missing),
            "workers": self.records(),
            "num_workers": self.num_workers,
            "bytes": self.bytes,
            "records_read": self.records_read,
            "software": list(self.software),
        }

    def records(self) -> list[dict[str, Any]]:
        """One record for each worker."""
        return [plain(worker) for worker in self.workers]


def counted_shards(cache: Cache) -> tuple[int, ...]:
    """The committed shards; of an unsealed cache with more than `MOST_READ` records those that have one, whole or not."""
    named = cache.commits.named()
    return named if len(named) > MOST_READ else cache.shards


def cache_status(cache: Cache, report: Report = silent) -> CacheStatus:
    """Reads the record of every committed shard, or `MOST_READ` of them."""
    shards = counted_shards(cache)
    records, drawn = [], _drawn(shards)
    cache.commits.have(drawn)
    for shard in counted(drawn, report, "reading records", "shards"):
        try:
            records.append(cache.commits.record(shard))
        except DamageError:
            if len(shards) <= MOST_READ:
                raise
    by_worker: dict[str, list[dict[str, float]]] = {}
    for record in records:
        if "worker" in record:
            by_worker.setdefault(record["worker"], []).append({**NOTED, **record})
    workers = [
        WorkerStatus(
            worker=worker,
            shards=len(of_worker),
            rows_per_second=sum(r["rows"] for r in of_worker)
            / max(1e-9, sum(r["seconds"] for r in of_worker)),
            last_commit=max(r["finished"] for r in of_worker),
        )
        for worker, of_worker in by_worker.items()
    ]
    read_bytes = sum(file["bytes"] for record in records for file in record["files"].values())
    software = {", ".join(f"{name} {record.get(name, 'unknown')}" for name in SOFTWARE) for record in records}
    latest = max(workers, key=lambda w: w.last_commit, default=None)
    return CacheStatus(
        shards_done=len(shards),
        shards_planned=cache.plan.num_shards,
        missing=missing_shards(cache, shards),
        workers=tuple(sorted(workers, key=lambda w: tuple(map(int, w.worker.split("/"))))),
        num_workers=int(latest.worker.split("/")[1]) if latest else 1,
        bytes=read_bytes * len(shards) // max(1, len(records)),
        records_read=len(records),
        software=tuple(sorted(software)),
    )


def _drawn(shards: tuple[int, ...]) -> list[int]:
    """The shards whose records are read."""
    if len(shards) <= MOST_READ:
        return list(shards)
    return sorted([*random.Random(0).sample(shards[:-NEWEST], MOST_READ - NEWEST), *shards[-NEWEST:]])


def missing_shards(cache: Cache, committed: Sequence[int] | None = None) -> tuple[range, ...]:
    """The shards that are planned and not committed, as stretches, ascending. By default every record is read."""
    ends = [-1, *(cache.shards if committed is None else committed), cache.plan.num_shards]
    return tuple(range(one + 1, other) for one, other in pairwise(ends) if one + 1 < other)


def workers_to_run(missing: Iterable[range], num_workers: int) -> tuple[int, ...]:
    """The workers of N, by I, whose share holds a missing shard (`alens.cache.write_cache.shards_to_write`)."""
    return tuple(sorted({shard % num_workers for run in missing for shard in run[:num_workers]}))


def array_specification(numbers: Iterable[int]) -> str:
    """Ascending numbers as `sbatch --array` takes them: `3,17,42-45`; empty for none."""
    runs: list[range] = []
    for number in numbers:
        if runs and number == runs[-1].stop:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return specification_of(runs)


def specification_of(runs: Iterable[range]) -> str:
    """As `array_specification`, for stretches."""
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
