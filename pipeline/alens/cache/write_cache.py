"""`alens cache`: makes the plan, computes shards and commits them; can be stopped at any time and run again.

In: MODEL, CORPUS, a store directory and settings. Out: the store, with this worker's shards committed, and sealed once
all shards are. A shard is written while the next one is computed.
"""

import contextlib
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from alens.cache import shard as shards
from alens.cache.prepare import prepare
from alens.cache.request import CacheRequest, check_settings
from alens.errors import DamageError, StoppedError
from alens.job.progress import Progress, Report, ShouldStop, never, silent
from alens.job.worker import Worker
from alens.machine.allotment import follow_allotment
from alens.machine.software import software
from alens.model import models
from alens.model.examine import examine_again
from alens.result import Result
from alens.store.cache_reader import Cache, open_cache
from alens.store.durable import remove, write_errors
from alens.store.paths import StorePaths
from alens.store.schema import Plan
from alens.store.writer import ShardWriter, put_manifest


@dataclass(frozen=True, kw_only=True)
class CacheSummary(Result):
    """The result of one run of `write_cache`."""

    cache: Cache
    shards_written: int
    rows_written: int
    seconds: float
    """The time from the first forward pass on."""

    @cached_property
    def shards_committed(self) -> int:
        """How many shards have a record, by any worker."""
        return self.cache.plan.num_shards if self.cache.sealed else len(self.cache.commits.named())

    def headline(self) -> str:
        """How much this run wrote, where, and how much of the cache is written."""
        cache = self.cache
        state = (
            "sealed"
            if cache.sealed
            else f"{self.shards_committed} of {cache.plan.num_shards} shards committed"
        )
        return f"{self.rows_written:,} rows of {self.shards_written} shards written to {cache.root}, {state}"

    def to_json(self) -> dict[str, Any]:
        """The numbers, with the path of the cache and how much of it is written."""
        return {
            "cache": str(self.cache.root),
            "sealed": self.cache.sealed,
            "shards_committed": self.shards_committed,
            "shards_planned": self.cache.plan.num_shards,
            "shards_written": self.shards_written,
            "rows_written": self.rows_written,
            "seconds": self.seconds,
        }

    def records(self) -> list[dict[str, Any]]:
        """A single record: a run has one result."""
        return [self.to_json()]


def write_cache(
    request: CacheRequest, *, report: Report = silent, should_stop: ShouldStop = never
) -> CacheSummary:
    """Write the missing shards of this worker; seal the cache when no worker's shards are missing.

    Raises `RequestError` for a request that cannot be met, `RunError` for a full disk and the like, and `StoppedError`
    when `should_stop` says so: committed shards stay, and the next run goes on.
    """
    follow_allotment()
    source = models.find(request.model, request.revision, report=report)
    check_settings(request.settings, source)
    if should_stop():
        raise StoppedError("stopped before anything was written; run again to go on")
    prepared = prepare(request, source, report, should_stop)
    plan, cache = prepared.plan, open_cache(request.store)
    mine = shards_to_write(plan, request.worker, ())
    # Only the records of its own shards: a thousand workers that read all of them would read each a thousand times.
    missing = shards_to_write(plan, request.worker, set(cache.commits.committed(mine)))
    started = time.monotonic()
    if missing:
        model = prepared.model
        if model is None:
            source = models.known_as(source, plan.model, request.store)
            model = models.load(source, dtype=plan.settings.dtype, device=request.device, report=report)
            report(Progress(stage="examining the model"))
            examine_again(model, cache.tokens, plan, request.store)
        with write_errors(request.store):
            # A sealed cache that lost a shard is no longer whole.
            remove(StorePaths(request.store).manifest)
        rows_before = (len(mine) - len(missing)) * plan.settings.rows_per_shard
        job = ShardJob(request, cache, model, rows_before, report, should_stop)
        job.write(missing)
    cache = open_cache(request.store)
    if not cache.sealed and len(cache.commits.named()) == plan.num_shards:
        with contextlib.suppress(
            DamageError
        ):  # a record is not whole: the next run of its worker writes the shard again
            put_manifest(request.store, plan, cache.commits.files())
            cache = open_cache(request.store)
    return CacheSummary(
        cache=cache,
        shards_written=len(missing),
        rows_written=len(missing) * plan.settings.rows_per_shard,
        seconds=time.monotonic() - started,
    )


def shards_to_write(plan: Plan, worker: Worker, committed: Collection[int]) -> list[int]:
    """The worker's shards that are not committed: every N-th, so that all workers move through the text."""
    return [shard for shard in range(worker.index, plan.num_shards, worker.count) if shard not in committed]


class _StopAskedError(Exception):
    """Raised between two blocks of a batch; becomes a `StoppedError` once the shard being written is committed."""


class ShardJob:
    """Computes shards one after the other; a thread writes each shard while the next one is computed."""

    def __init__(
        self,
        request: CacheRequest,
        cache: Cache,
        model: models.LoadedModel,
        rows_before: int,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self._request, self._cache, self._model = request, cache, model
        self._report, self._should_stop = report, should_stop
        self._plan = cache.plan
        self._writer = ShardWriter(request.store, cache.plan)
        self._size = cache.plan.settings.rows_per_shard
        self._before, self._total = rows_before, rows_before
        self._computed, self._committed = 0, 0
        self._writing: Future[None] | None = None
        self._started = time.monotonic()

    def write(self, missing: list[int]) -> None:
        """Compute, write and commit these shards. Raises `StoppedError`."""
        self._total += len(missing) * self._size
        self._report(Progress(stage="cache", done=self._before, total=self._total, unit="rows"))
        with ThreadPoolExecutor(1, "alens-write") as thread:
            try:
                for shard in missing:
                    since = time.monotonic()
                    self._writer.check_space(1 if self._writing is None else 2)
                    arrays = shards.compute(
                        self._model,
                        self._plan,
                        self._cache.tokens,
                        shard,
                        self._after_batch,
                        self._within_batch,
                    )
                    self._computed += self._size
                    self._settle()
                    self._writing = thread.submit(self._writer.write, shard, arrays, self._note(since))
                    del arrays
                self._settle()
            except _StopAskedError:
                self._settle()
                raise StoppedError(
                    f"stopped; {self._before + self._committed:,} of this worker's {self._total:,} rows are committed "
                    f"in {self._request.store}, run again to go on"
                ) from None

    def _settle(self) -> None:
        """Wait until the shard being written is committed. Raises the error of its writing."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()
            self._committed += self._size

    def _note(self, since: float) -> dict[str, Any]:
        """What the commit record says of how the shard was made."""
        return {
            "worker": str(self._request.worker),
            "device": str(self._model.device),
            "threads": torch.get_num_threads(),
            "rows": self._size,
            "seconds": round(time.monotonic() - since, 3),
            "finished": time.time(),
            **software(),
        }

    def _within_batch(self) -> None:
        if self._should_stop():
            raise _StopAskedError

    def _after_batch(self, rows_of_shard: int) -> None:
        self._within_batch()
        if self._writing is not None and self._writing.done():
            self._settle()  # so that a full disk is reported now, not after the next shard
        rows = self._computed + rows_of_shard
        note = f"{rows / (time.monotonic() - self._started):,.0f} rows/s"
        self._report(
            Progress(stage="cache", done=self._before + rows, total=self._total, unit="rows", note=note)
        )
