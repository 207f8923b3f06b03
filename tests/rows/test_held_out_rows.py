"""Held-out rows: from their shards, shared out over ranks, each with the text's next token."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.heads import Heads
from alens.rows.columns import RowReader
from alens.rows.held_out_rows import NO_NEXT_TOKEN, HeldOutRows


def reader(store: Path) -> RowReader:
    return RowReader(open_cache(store), Heads.grid((2,), (0, 1)), "compressed", 1, torch.device("cpu"))


def rows_of(store: Path, shards: tuple[int, ...], num_rows: int, **ranks: int) -> list[tuple[int, int]]:
    """(sequence, position) of every row, in order."""
    rows = []
    held_out = HeldOutRows(reader=reader(store), shards=shards, num_rows=num_rows, **ranks)
    for part in held_out.parts():
        columns = part.columns.by_name
        rows += zip(columns["rows/sequence"].tolist(), columns["rows/position"].tolist(), strict=True)
    assert len(rows) == held_out.count
    return rows


def test_they_are_the_first_usable_rows_of_the_shards(demo_cache: Path) -> None:
    rows = rows_of(demo_cache, (4, 5), 1500)
    assert len(set(rows)) == 1500
    sequences = [sequence for sequence, _ in rows]
    assert set(sequences[:1008]) == set(range(64, 80))
    assert set(sequences[1008:]) <= set(range(80, 96))
    assert min(position for _, position in rows) == 1


def test_no_more_rows_than_there_are(demo_cache: Path) -> None:
    assert len(rows_of(demo_cache, (5,), 10**6)) == 1008


def test_parts_of_a_few_rows_are_the_same_rows(demo_cache: Path) -> None:
    held_out = HeldOutRows(reader=reader(demo_cache), shards=(4, 5), num_rows=1500)
    whole, few = list(held_out.parts()), list(held_out.parts(700))
    assert [len(part) for part in few] == [700, 308, 492]
    for values in (lambda part: part.next_ids_N, lambda part: part.values(2)):
        assert torch.equal(torch.cat([values(part) for part in few]), torch.cat([values(p) for p in whole]))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_rows_without_overlap(demo_cache: Path, world_size: int) -> None:
    whole = rows_of(demo_cache, (4, 5), 1501)
    shares = [
        rows_of(demo_cache, (4, 5), 1501, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    assert sorted(row for share in shares for row in share) == sorted(whole)


def test_the_next_token_is_the_one_at_the_next_position(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    (part,) = HeldOutRows(reader=reader(demo_cache), shards=(5,), num_rows=10**6).parts()
    sequence, position = (
        part.columns.by_name[f"rows/{name}"].astype(int) for name in ("sequence", "position")
    )
    next_ids = part.next_ids_N.numpy()
    for row in np.flatnonzero(position < 63)[:100]:
        assert next_ids[row] == cache.tokens[sequence[row], position[row] + 1]
    assert (next_ids[position == 63] == NO_NEXT_TOKEN).all()
    assert (position == 63).sum() == 16


def test_the_top_token_is_the_models(demo_cache: Path) -> None:
    (part,) = HeldOutRows(reader=reader(demo_cache), shards=(5,), num_rows=10**6).parts()
    assert part.choice(1).ids_NJ[:, 0].tolist() == part.columns.by_name["targets/ids"][:, 0].tolist()


def test_rows_of_all_shards_are_as_many_of_each(demo_cache: Path) -> None:
    rows = rows_of(demo_cache, (3, 4, 5), 100, all_shards=True)
    shards = [sequence // 16 for sequence, _ in rows]
    assert sorted(shards.count(shard) for shard in (3, 4, 5)) == [33, 33, 34]
    assert len(rows_of(demo_cache, (4, 5), 10**6, all_shards=True)) == 2016
