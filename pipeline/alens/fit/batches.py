"""Shards -> batches for this rank: straight through whole shards, in an order that the seed alone decides.

In: a `RowReader`, the training shards, a seed. Out: for each step, this rank's rows of the site's values (layer by
layer) and of the target. Shards come in a seeded order, epoch after epoch. A shard is cut into `lanes` equal stretches;
a step takes the next rows of every lane, and rank r of W has the r-th part of the lanes. So a step has the same rows for
any number of processes, and each process reads one stretch of each shard, once. The next shard is read, and the next
batch made, while this one is used.
Shapes: N rows, H heads, E width of the site's values.
"""

import dataclasses
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import TypeVar

import torch

from alens import randomness
from alens.errors import RequestError
from alens.job.progress import ShouldStop, never
from alens.rows.columns import Columns, RowReader
from alens.rows.teacher import Teacher

T = TypeVar("T")

MOST_LANES = 64
"""The most processes that can share a batch; more of them would need larger batches in any case."""

FEWEST_LANES = 8

LOOK_S = 0.1
"""Seconds between two looks whether to stop, while a step waits for data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """This rank's rows of a step."""

    z_NHE: dict[int, torch.Tensor]
    """The values by layer; float16, on the device."""
    teacher: Teacher
    """What the rows are fitted to."""
    waited_s: float = 0.0
    """Seconds that the step waited for data."""


def num_lanes(batch_rows: int, rows_per_shard: int) -> int:
    """The divisor of `batch_rows` that leaves out the fewest rows of a shard, and of those the largest."""
    fitting = [n for n in range(1, min(MOST_LANES, rows_per_shard, batch_rows) + 1) if batch_rows % n == 0]
    enough = [n for n in fitting if n >= FEWEST_LANES] or fitting[-1:]
    return min(enough, key=lambda n: (rows_per_shard % n, -n))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchStream:
    """The rows of a fit, cut into steps and shared among ranks."""

    reader: RowReader
    shards: tuple[int, ...]
    batch_rows: int
    seed: int
    rank: int = 0
    world_size: int = 1
    target: Callable[[Columns, Teacher], Teacher] = lambda _, teacher: teacher
    """What rows are fitted to; runs in the thread that makes batches."""
    should_stop: ShouldStop = never
    """When it returns true, the stream no longer waits for data and the batches end early."""

    def __post_init__(self) -> None:
        if self.lanes % self.world_size:
            raise RequestError(
                f"batch_rows is {self.batch_rows}, which is shared out in {self.lanes} parts, not a multiple of the {self.world_size} processes: "
                "the step would differ; take a multiple of 64 times the processes"
            )

    @cached_property
    def lanes(self) -> int:
        """Stretches of a shard that a step draws from."""
        return num_lanes(self.batch_rows, self.reader.rows_per_shard)

    @property
    def lane_rows(self) -> int:
        """Rows of a lane in a shard."""
        return self.reader.rows_per_shard // self.lanes

    @property
    def rows_per_epoch(self) -> int:
        return self.lanes * self.lane_rows * len(self.shards)

    def steps_for(self, epochs: float) -> int:
        """Whole steps in this many epochs, at least one."""
        return max(1, int(epochs * self.rows_per_epoch // self.batch_rows))

    def shard_at(self, place: int) -> int:
        """The `place`-th shard of the stream, epoch after epoch."""
        epoch, index = divmod(place, len(self.shards))
        order = randomness.permutation(len(self.shards), self.seed, randomness.SHARD_ORDER, epoch)
        return self.shards[int(order[index])]

    def batches(self, start: int, stop: int) -> Generator[TrainingBatch, None, None]:
        """The batches of steps `start` to `stop - 1`; the first row follows step `start - 1`'s last."""
        for batch, waited_s in self.made(start, stop, lambda _, columns: self._batch(columns)):
            yield dataclasses.replace(batch, waited_s=waited_s)

    def made(
        self, start: int, stop: int, make: Callable[[int, Columns], T]
    ) -> Generator[tuple[T, float], None, None]:
        """What `make` makes from the number and the rows of each step, and the seconds that were waited for it.

        `make` runs in a thread, during the step before. Ends early when asked to stop while it waits.
        """
        last_place = (stop * self.batch_rows // self.lanes - 1) // self.lane_rows
        # Two threads: one reads the next shard, one makes the next batch of those that were read.
        readers, makers = (
            ThreadPoolExecutor(1, thread_name_prefix=f"alens-{name}") for name in ("read", "batch")
        )
        window = _ShardWindow(lambda place: readers.submit(self._read, place), last_place)

        def coming(step: int) -> Future[T]:
            return makers.submit(lambda: make(step, self._columns(window, step)))

        try:
            following = coming(start)
            for step in range(start, stop):
                since = time.monotonic()
                if not self._wait_for(following):
                    return
                made = following.result()
                waited_s = time.monotonic() - since
                if step + 1 < stop:
                    following = coming(step + 1)
                yield made, waited_s
        finally:
            for pool in (readers, makers):  # when asked to stop, data is not worth waiting for
                pool.shutdown(wait=not self.should_stop(), cancel_futures=True)

    def _wait_for(self, coming: Future[T]) -> bool:
        """Wait for a batch; False when asked to stop before it is there."""
        while not wait([coming], LOOK_S).done:
            if self.should_stop():
                return False
        return True

    def _read(self, place: int) -> Columns:
        """This rank's stretch of the `place`-th shard."""
        mine = self.lanes // self.world_size * self.lane_rows
        return self.reader.shard(
            self.shard_at(place),
            start=self.rank * mine,
            stop=(self.rank + 1) * mine,
            rank=self.rank,
            world_size=self.world_size,
        )

    def _columns(self, window: "_ShardWindow", step: int) -> Columns:
        """This rank's rows of a step."""
        mine, take = self.lanes // self.world_size, self.batch_rows // self.lanes
        parts: list[list[Columns]] = [[] for _ in range(mine)]
        for place, a, b in _spans(step * take, (step + 1) * take, self.lane_rows):
            for lane, part in enumerate(window.get(place).lanes(mine, a, b)):
                parts[lane].append(part)
        return Columns.join([part for lane in parts for part in lane])

    def _batch(self, columns: Columns) -> TrainingBatch:
        return TrainingBatch(
            z_NHE={layer: self.reader.z(columns, layer) for layer in self.reader.layers},
            teacher=self.target(columns, self.reader.teacher(columns)),
        )


class _ShardWindow:
    """The shards around the current row of the stream, of which the next one is being read."""

    def __init__(self, read: Callable[[int], "Future[Columns]"], last_place: int) -> None:
        self._read, self._last = read, last_place
        self._held: dict[int, Future[Columns]] = {}

    def get(self, place: int) -> Columns:
        for wanted in (place, place + 1):
            if wanted <= self._last and wanted not in self._held:
                self._held[wanted] = self._read(wanted)
        for old in [held for held in self._held if held < place]:
            del self._held[old]
        return self._held[place].result()


def _spans(first: int, stop: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(place, start, stop within the lane) for rows `first` to `stop - 1` of a lane's stream."""
    while first < stop:
        place, start = divmod(first, size)
        end = min(size, start + stop - first)
        yield place, start, end
        first += end - start
