"""The stream of rows: the same for every number of processes, each row once an epoch, resumable anywhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alens import open_cache
from alens.errors import DamageError, RequestError
from alens.fit.batches import FEWEST_LANES, MOST_LANES, BatchStream, num_lanes
from alens.heads import Heads
from alens.rows.columns import Columns, RowReader
from alens.rows.teacher import CompressedTeacher, Teacher
from alens.store.cache_reader import Cache

SHARDS = (0, 2, 3, 7)
ROWS_PER_SHARD = 512 // 8 * 7  # of 8 positions, the first is left out


def stream(store: Path, **changed: object) -> BatchStream:
    """Batches of 100 rows: they fit neither a shard (448 rows) nor an epoch (1,792)."""
    reader = RowReader(open_cache(store), Heads.grid((0,), (0, 1)), "compressed", 1, torch.device("cpu"))
    usual = {"reader": reader, "shards": SHARDS, "batch_rows": 100, "seed": 5}
    return BatchStream(**{**usual, **changed})


def rows_of(batch_stream: BatchStream, start: int, stop: int) -> list[torch.Tensor]:
    """For each step, z beside the ids of the targets: enough to tell rows apart."""
    rows = []
    for batch in batch_stream.batches(start, stop):
        assert isinstance(batch.teacher, CompressedTeacher)
        ids = batch.teacher.ids_NJ.float()
        rows.append(torch.cat([batch.z_NHE[0].float().flatten(1), ids], dim=1))
    return rows


def stored(store: Path, shard: int) -> torch.Tensor:
    """The same rows as the shard holds them."""
    cache = open_cache(store)
    keep = cache.read_shard("rows/position", shard) >= 1
    parts = [cache.read_shard(f"targets/{name}", shard)[keep] for name in ("ids", "tail_ids")]
    z = cache.read_shard("sites/attn.z/00", shard)[keep].reshape(-1, 8)
    return torch.from_numpy(np.concatenate([z.astype(np.float32), *parts], axis=1))


@given(batch_rows=st.integers(1, 5000), rows_per_shard=st.integers(1, 5000))
@settings(max_examples=300)
def test_lanes_divide_a_batch_and_leave_out_the_fewest_rows(batch_rows: int, rows_per_shard: int) -> None:
    lanes = num_lanes(batch_rows, rows_per_shard)
    assert batch_rows % lanes == 0 and 1 <= lanes <= min(MOST_LANES, rows_per_shard)
    others = [n for n in range(FEWEST_LANES, min(MOST_LANES, rows_per_shard) + 1) if batch_rows % n == 0]
    for other in others:
        assert lanes >= FEWEST_LANES
        assert (rows_per_shard % lanes, -lanes) <= (rows_per_shard % other, -other)


def test_whole_batches_of_usual_sizes_leave_nothing_out() -> None:
    assert num_lanes(1024, 4096 // 64 * 63) == 64
    assert num_lanes(1024, 65536 // 1024 * 1023) == 64


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_what_one_process_sees(planted_store: Path, world_size: int) -> None:
    alone = rows_of(stream(planted_store), 0, 40)
    ranks = [
        rows_of(stream(planted_store, rank=rank, world_size=world_size), 0, 40) for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        assert torch.equal(torch.cat([rank[step] for rank in ranks]), whole)


def test_an_epoch_is_every_usable_row_of_every_shard_once(planted_store: Path) -> None:
    batch_stream = stream(planted_store, batch_rows=256)
    assert batch_stream.rows_per_epoch == 4 * ROWS_PER_SHARD == 7 * 256
    seen = torch.cat(rows_of(batch_stream, 0, 7)).unique(dim=0)
    expected = torch.cat([stored(planted_store, shard) for shard in SHARDS]).unique(dim=0)
    assert len(expected) == batch_stream.rows_per_epoch
    assert torch.equal(seen, expected)


def lanes_of(store: Path, batch_stream: BatchStream, places: int) -> torch.Tensor:
    """(lanes, rows, ...): the rows that each lane gives from the first shards of the stream, in order."""
    shards = [stored(store, batch_stream.shard_at(place)) for place in range(places)]
    whole = batch_stream.lanes * batch_stream.lane_rows
    return torch.cat([rows[:whole].unflatten(0, (batch_stream.lanes, -1)) for rows in shards], dim=1)


@pytest.mark.parametrize("batch_rows", [64, 100, 96])
def test_a_step_takes_the_next_rows_of_every_lane_of_shards_in_the_seeded_order(
    planted_store: Path, batch_rows: int
) -> None:
    batch_stream = stream(planted_store, batch_rows=batch_rows)
    lanes, take = (
        lanes_of(planted_store, batch_stream, 8),
        batch_rows // batch_stream.lanes,
    )  # two epochs of 4 shards
    for step, rows in enumerate(rows_of(batch_stream, 0, batch_stream.steps_for(2.0))):
        assert torch.equal(rows, lanes[:, step * take : (step + 1) * take].flatten(0, 1))


def test_rows_of_a_lane_of_last_positions_alone_are_those_of_each_sequence(planted_store: Path) -> None:
    cache = open_cache(planted_store)
    reader = RowReader(
        cache, Heads.grid((0,), (0, 1)), "compressed", 7, torch.device("cpu"), columns=("rows/position",)
    )
    batch_stream = stream(planted_store, reader=reader, batch_rows=16)
    positions: list[int] = []

    def target(columns: Columns, teacher: Teacher) -> Teacher:
        positions.extend(columns.by_name["rows/position"].tolist())
        return teacher

    rows_of(stream(planted_store, reader=reader, batch_rows=16, target=target), 0, 8)
    assert batch_stream.rows_per_epoch == 4 * 64 and positions == [7] * 128


def test_what_the_target_makes_of_the_rows_is_what_they_are_fitted_to(planted_store: Path) -> None:
    def target(columns: Columns, teacher: Teacher) -> Teacher:
        assert isinstance(teacher, CompressedTeacher) and len(teacher.entropies) == len(columns) == 50
        return CompressedTeacher(teacher.ids_NJ[:, :1], teacher.weights_NJ[:, :1], teacher.entropies)

    for batch in stream(planted_store, rank=1, world_size=2, target=target).batches(3, 5):
        assert isinstance(batch.teacher, CompressedTeacher) and batch.teacher.ids_NJ.shape == (50, 1)


def test_every_epoch_has_every_shard_in_an_order_of_its_own(planted_store: Path) -> None:
    batch_stream = stream(planted_store)
    epochs = [tuple(batch_stream.shard_at(4 * epoch + i) for i in range(4)) for epoch in range(6)]
    assert all(sorted(order) == sorted(SHARDS) for order in epochs)
    assert len(set(epochs)) > 1


def test_the_order_depends_on_the_seed_alone(planted_store: Path) -> None:
    def order(seed: int) -> list[int]:
        return [stream(planted_store, seed=seed).shard_at(place) for place in range(20)]

    assert order(5) == order(5)
    assert order(5) != order(6)


@pytest.mark.parametrize("start", [1, 4, 5, 17, 23])
def test_starting_in_the_middle_continues_exactly(planted_store: Path, start: int) -> None:
    whole = rows_of(stream(planted_store), 0, 24)
    rest = rows_of(stream(planted_store), start, 24)
    assert len(rest) == 24 - start
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_a_batch_may_be_larger_than_a_shard_and_an_epoch(planted_store: Path) -> None:
    batch_stream = stream(planted_store, batch_rows=2000, shards=(1, 3))
    (rows,) = rows_of(batch_stream, 0, 1)
    lanes = lanes_of(planted_store, batch_stream, 6)
    assert torch.equal(rows, lanes[:, : 2000 // batch_stream.lanes].flatten(0, 1))


def test_no_shard_is_read_that_is_not_used(planted_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = RowReader.shard

    def counted(self: RowReader, shard: int, *more: str, **stretch: int) -> Columns:
        asked.append(shard)
        return read(self, shard, *more, **stretch)

    monkeypatch.setattr(RowReader, "shard", counted)
    batch_stream = stream(planted_store, batch_rows=ROWS_PER_SHARD)
    rows_of(batch_stream, 0, 3)
    assert asked == [batch_stream.shard_at(place) for place in range(3)]


def test_each_process_reads_its_stretch_of_each_shard_once(
    planted_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stretches: list[tuple[int, int, int]] = []
    read = RowReader.shard

    def counted(
        self: RowReader, shard: int, *more: str, start: int = 0, stop: int | None = None, **share: int
    ) -> Columns:
        assert stop is not None
        columns = read(self, shard, *more, start=start, stop=stop, **share)
        assert len(columns) == stop - start
        stretches.append((shard, start, stop))
        return columns

    monkeypatch.setattr(RowReader, "shard", counted)
    for rank in range(4):
        rows_of(stream(planted_store, batch_rows=64, rank=rank, world_size=4), 0, 28)
    assert len(stretches) == 4 * len(SHARDS)
    for shard in SHARDS:
        edges = sorted((start, stop) for number, start, stop in stretches if number == shard)
        assert edges == [(112 * rank, 112 * (rank + 1)) for rank in range(4)]


def test_only_the_stored_rows_of_a_stretch_are_read(
    planted_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, taken = Cache.read, []

    def counted(self: Cache, name: str, rows: slice) -> object:
        if name != "rows/position":  # says which rows count, and is small
            taken.append(rows.stop - rows.start)
        return read(self, name, rows)

    monkeypatch.setattr(Cache, "read", counted)
    columns = stream(planted_store).reader.shard(3, start=112, stop=224)
    assert len(columns) == 112 and 112 <= max(taken) < 512 // 4 + 32


def test_a_batch_that_the_processes_cannot_share_evenly_is_refused(planted_store: Path) -> None:
    with pytest.raises(
        RequestError, match="batch_rows is 100, which is shared out in 20 parts, not a multiple of the 3 proc"
    ):
        stream(planted_store, world_size=3)


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 17), (2.0, 35), (0.5, 8), (0.001, 1)])
def test_epochs_are_whole_steps_and_at_least_one(planted_store: Path, epochs: float, steps: int) -> None:
    assert stream(planted_store).steps_for(epochs) == steps


def test_a_damaged_shard_stops_the_stream_by_name(
    planted_store: Path, copy_of: Callable[[Path], Path]
) -> None:
    store = copy_of(planted_store)
    (store / "arrays.zarr/sites/attn.z/00/c.3.0.0").unlink()
    batch_stream = stream(store, shards=(0, 3), batch_rows=2 * ROWS_PER_SHARD)
    with pytest.raises(DamageError, match=r"c\.3\.0\.0"):
        next(batch_stream.batches(0, 1))
