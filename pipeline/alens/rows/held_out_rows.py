"""Held-out rows: shard by shard, with what judging a reading needs beside z and the teacher.

In: a `RowReader` and the shards that no fit has seen. Out: `HeldOutPart`s, each process its share.
Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from alens.job.interruption import leave_out
from alens.machine.blocks import slices
from alens.rows.agreement import ModelChoice
from alens.rows.columns import Columns, RowReader
from alens.rows.teacher import Teacher

NO_NEXT_TOKEN = -1
"""The next token of a sequence's last row: the text goes on, but not in this sequence."""

FURTHER_COLUMNS = ("targets/ids", "targets/log_probs", "rows/sequence", "rows/position")


@dataclass(frozen=True, kw_only=True)
class HeldOutPart:
    """Some held-out rows. Tensors are on the reader's device."""

    reader: RowReader
    columns: Columns

    def __len__(self) -> int:
        return len(self.columns)

    def values(self, layer: int) -> torch.Tensor:
        """(N, H, E) float16 values of the site."""
        return self.reader.z(self.columns, layer)

    @cached_property
    def teacher(self) -> Teacher:
        """The model's distributions."""
        return self.reader.teacher(self.columns)

    def choice(self, k: int) -> ModelChoice:
        """The model's `k` most probable next tokens."""
        ids_NJ = torch.from_numpy(self.columns.by_name["targets/ids"].astype(np.int64))
        log_probs_NJ = torch.from_numpy(np.ascontiguousarray(self.columns.by_name["targets/log_probs"]))
        device, d_vocab = self.reader.device, self.reader.cache.plan.model.d_vocab
        return ModelChoice.of(ids_NJ.to(device), log_probs_NJ.float().to(device), k, d_vocab)

    @cached_property
    def next_ids_N(self) -> torch.Tensor:
        """(N,) int64: the text's next token, or NO_NEXT_TOKEN."""
        cache = self.reader.cache
        sequence_N = self.columns.by_name["rows/sequence"].astype(np.int64)
        next_position_N = self.columns.by_name["rows/position"].astype(np.int64) + 1
        inside_N = next_position_N < cache.plan.settings.seq_len
        next_ids_N = np.full(len(sequence_N), NO_NEXT_TOKEN, dtype=np.int64)
        next_ids_N[inside_N] = cache.tokens[sequence_N[inside_N], next_position_N[inside_N]]
        return torch.from_numpy(next_ids_N).to(self.reader.device)


@dataclass(frozen=True, kw_only=True)
class HeldOutRows:
    """The first `num_rows` usable rows of `shards`. Each rank reads its own equal stretch of each shard."""

    reader: RowReader
    shards: Sequence[int]
    num_rows: int
    rank: int = 0
    world_size: int = 1
    all_shards: bool = False
    """Whether as many rows are read of each shard, and not all of the first shards: those of a shard are permuted, but its
    documents may be few."""

    @property
    def count(self) -> int:
        """How many rows this rank reads."""
        return sum(stop - start for _, start, stop in self._stretches())

    @property
    def shards_read(self) -> list[int]:
        """The shards that hold these rows."""
        return [shard for shard, _, _ in self._stretches()]

    def parts(self, most: int | None = None) -> Iterator[HeldOutPart]:
        """The rows of one shard after the other, up to where work is to be left out (`job.interruption`); at most `most`
        rows at a time."""
        for shard, start, stop in self._stretches():
            columns = self.reader.shard(
                shard, *FURTHER_COLUMNS, start=start, stop=stop, rank=self.rank, world_size=self.world_size
            )
            for rows in slices(len(columns), most or max(1, len(columns))):
                yield HeldOutPart(reader=self.reader, columns=columns.rows(rows.start, rows.stop))
                if leave_out():
                    return

    def _stretches(self) -> Iterator[tuple[int, int, int]]:
        """(shard, first usable row, last usable row + 1) of this rank."""
        rows_left = self.num_rows
        for number, shard in enumerate(self.shards):
            if rows_left <= 0:
                return
            most = -(-rows_left // (len(self.shards) - number)) if self.all_shards else rows_left
            rows_here = min(most, self.reader.num_rows([shard]))
            rows_left -= rows_here
            yield (
                shard,
                self.rank * rows_here // self.world_size,
                (self.rank + 1) * rows_here // self.world_size,
            )
