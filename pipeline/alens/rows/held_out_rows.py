"""Held-out rows: shard by shard, with what judging a reading needs beside z and the teacher.

In: a `RowReader` and the shards that no fit has seen. Out: `HeldOutRows`, each process its share.
Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alens.rows.agreement import ModelChoice
from alens.rows.columns import Columns, RowReader
from alens.rows.teacher import Teacher
from alens.store.cache_reader import Cache

NO_NEXT_TOKEN = -1
"""The next token of a sequence's last row: the text goes on, but not in this sequence."""

FURTHER_COLUMNS = ("targets/ids", "targets/log_probs", "rows/sequence", "rows/position")


@dataclass(frozen=True, kw_only=True)
class HeldOutRows:
    """Some held-out rows, on the device."""

    columns: Columns
    teacher: Teacher
    choice: ModelChoice
    """The model's most probable next token."""
    next_ids_N: torch.Tensor
    """The text's next token, or NO_NEXT_TOKEN."""


def held_out_rows(
    reader: RowReader, shards: Sequence[int], num_rows: int, *, rank: int = 0, world_size: int = 1
) -> Iterator[HeldOutRows]:
    """The first `num_rows` usable rows of `shards`; each rank reads its own equal stretch of each shard."""
    for shard, start, stop in _stretches(reader, shards, num_rows, rank, world_size):
        mine = reader.shard(shard, *FURTHER_COLUMNS, start=start, stop=stop, rank=rank, world_size=world_size)
        if len(mine):
            yield HeldOutRows(
                columns=mine,
                teacher=reader.teacher(mine),
                choice=model_choice(mine, 1, reader.cache.plan.model.d_vocab, reader.device),
                next_ids_N=_next_ids(reader.cache, mine).to(reader.device),
            )


def num_held_out_rows(
    reader: RowReader, shards: Sequence[int], num_rows: int, *, rank: int = 0, world_size: int = 1
) -> int:
    """How many rows `held_out_rows` gives."""
    return sum(stop - start for _, start, stop in _stretches(reader, shards, num_rows, rank, world_size))


def _stretches(
    reader: RowReader, shards: Sequence[int], num_rows: int, rank: int, world_size: int
) -> Iterator[tuple[int, int, int]]:
    """(shard, first usable row, the one behind the last) of this rank."""
    left = num_rows
    for shard in shards:
        if left <= 0:
            return
        here = min(left, reader.num_rows([shard]))
        left -= here
        yield shard, rank * here // world_size, (rank + 1) * here // world_size


def model_choice(columns: Columns, k: int, d_vocab: int, device: torch.device) -> ModelChoice:
    """The model's `k` most probable next tokens, from `FURTHER_COLUMNS`; on the device."""
    ids_NJ = torch.from_numpy(columns.by_name["targets/ids"].astype(np.int64))
    log_probs_NJ = torch.from_numpy(np.ascontiguousarray(columns.by_name["targets/log_probs"])).float()
    return ModelChoice.of(ids_NJ.to(device), log_probs_NJ.to(device), k, d_vocab)


def _next_ids(cache: Cache, columns: Columns) -> torch.Tensor:
    sequence = columns.by_name["rows/sequence"].astype(np.int64)
    following = columns.by_name["rows/position"].astype(np.int64) + 1
    inside = following < cache.plan.settings.seq_len
    found = np.full(len(sequence), NO_NEXT_TOKEN, dtype=np.int64)
    found[inside] = cache.tokens[sequence[inside], following[inside]]
    return torch.from_numpy(found)
