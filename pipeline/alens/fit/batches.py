"""Shards -> batches for this rank: straight through whole shards, in an order that the seed alone fixes.

In: a `RowReader`, the training shards, a seed. Out: for each step, this rank's rows of z
(layer by layer) and of the teacher. The stream of rows is the same for any number of processes: epoch
after epoch, shards in a seeded order, rows as stored (they were permuted when written). A step is
`batch_rows` consecutive rows of it, and rank r of W takes the r-th of W equal parts. The next shard is
read while this one is used.
Shapes: N rows, H heads, E d_head.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from alens import randomness
from alens.errors import RequestError
from alens.rows import Columns, RowReader
from alens.teacher import Teacher


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """This rank's rows of a step."""

    z_NHE: dict[int, torch.Tensor]
    """By layer; float16, on the device."""
    teacher: Teacher
    waited_s: float
    """Seconds the step waited for data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchStream:
    """The rows of a fit, cut into steps and shared out over ranks."""

    reader: RowReader
    shards: tuple[int, ...]
    batch_rows: int
    seed: int
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.batch_rows % self.world_size:
            raise RequestError(
                f"batch_rows is {self.batch_rows}, not a multiple of the {self.world_size} processes: the step would differ"
            )

    @property
    def rows_per_epoch(self) -> int:
        return self.reader.rows_per_shard * len(self.shards)

    def steps_for(self, epochs: float) -> int:
        """Whole steps in so many passes, at least one."""
        return max(1, int(epochs * self.rows_per_epoch // self.batch_rows))

    def shard_at(self, place: int) -> int:
        """The `place`-th shard of the stream, epoch after epoch."""
        epoch, index = divmod(place, len(self.shards))
        order = randomness.permutation(len(self.shards), self.seed, randomness.SHARD_ORDER, epoch)
        return self.shards[int(order[index])]

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps `start` to `stop - 1`; the first row follows step `start - 1`'s last."""
        size, part = self.reader.rows_per_shard, self.batch_rows // self.world_size
        last_place = (stop * self.batch_rows - 1) // size
        with ThreadPoolExecutor(1, thread_name_prefix="alens-read") as pool:
            window = _Window(lambda place: pool.submit(self.reader.shard, self.shard_at(place)), last_place)
            for step in range(start, stop):
                first = step * self.batch_rows + self.rank * part
                since = time.monotonic()
                columns = Columns.join(
                    [window.get(place).rows(a, b) for place, a, b in _spans(first, first + part, size)]
                )
                waited_s = time.monotonic() - since
                z_NHE = {layer: self.reader.z(columns, layer) for layer in self.reader.layers}
                yield Batch(z_NHE=z_NHE, teacher=self.reader.teacher(columns), waited_s=waited_s)


class _Window:
    """The shards of the stream around the current row, the next one being read."""

    def __init__(self, read: Callable[[int], "Future[Columns]"], last_place: int) -> None:
        self._read, self._last = read, last_place
        self._held: dict[int, Future[Columns]] = {}

    def get(self, place: int) -> Columns:
        for wanted in (place, place + 1):
            if wanted <= self._last and wanted not in self._held:
                self._held[wanted] = self._read(wanted)
        for old in [held for held in self._held if held < place - 1]:
            del self._held[old]
        return self._held[place].result()


def _spans(first: int, stop: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(place, start, stop within the shard) for rows `first` to `stop - 1` of the stream."""
    while first < stop:
        place, start = divmod(first, size)
        end = min(size, start + stop - first)
        yield place, start, end
        first += end - start
