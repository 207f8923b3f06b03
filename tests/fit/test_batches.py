"""The stream of rows: one for every number of processes, each row once an epoch, resumable anywhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.errors import DamageError, RequestError
from alens.fit.batches import BatchStream
from alens.rows import Columns, RowReader
from alens.teacher import CompressedTeacher

SHARDS = (0, 2, 3, 7)
ROWS_PER_SHARD = 512 // 8 * 7  # of 8 positions, the first is left out


def stream(store: Path, **changed: object) -> BatchStream:
    """Batches of 100 rows: they fit neither a shard (448 rows) nor an epoch (1,792)."""
    reader = RowReader(open_cache(store), (0,), (0, 1), "compressed", 1, torch.device("cpu"))
    given = {"reader": reader, "shards": SHARDS, "batch_rows": 100, "seed": 5}
    return BatchStream(**{**given, **changed})


def rows_of(found: BatchStream, start: int, stop: int) -> list[torch.Tensor]:
    """Of each step, z beside the ids of the targets: enough to tell rows apart."""
    rows = []
    for batch in found.batches(start, stop):
        assert isinstance(batch.teacher, CompressedTeacher)
        ids = batch.teacher.ids_NJ.float()
        rows.append(torch.cat([batch.z_NHE[0].float().flatten(1), ids], dim=1))
    return rows


def stored(store: Path, shard: int) -> torch.Tensor:
    """The same, as the shard holds them."""
    cache = open_cache(store)
    keep = cache.read_shard("rows/position", shard) >= 1
    parts = [cache.read_shard(f"targets/{name}", shard)[keep] for name in ("ids", "tail_ids")]
    z = cache.read_shard("sites/attn.z/00", shard)[keep].reshape(-1, 8)
    return torch.from_numpy(np.concatenate([z.astype(np.float32), *parts], axis=1))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_what_one_process_sees(planted_store: Path, world_size: int) -> None:
    alone = rows_of(stream(planted_store), 0, 40)
    ranks = [
        rows_of(stream(planted_store, rank=rank, world_size=world_size), 0, 40) for rank in range(world_size)
    ]
    for step, whole in enumerate(alone):
        assert torch.equal(torch.cat([rank[step] for rank in ranks]), whole)


def test_an_epoch_is_every_usable_row_of_every_shard_once(planted_store: Path) -> None:
    found = stream(planted_store, batch_rows=256)
    assert found.rows_per_epoch == 4 * ROWS_PER_SHARD == 7 * 256
    seen = torch.cat(rows_of(found, 0, 7)).unique(dim=0)
    expected = torch.cat([stored(planted_store, shard) for shard in SHARDS]).unique(dim=0)
    assert len(expected) == found.rows_per_epoch
    assert torch.equal(seen, expected)


def test_the_stream_is_whole_shards_in_the_seeded_order(planted_store: Path) -> None:
    found = stream(planted_store)
    order = [found.shard_at(place) for place in range(8)]
    seen = torch.cat(rows_of(found, 0, 35))
    expected = torch.cat([stored(planted_store, shard) for shard in order])[:3500]
    assert torch.equal(seen, expected)


def test_every_epoch_has_every_shard_in_an_order_of_its_own(planted_store: Path) -> None:
    found = stream(planted_store)
    epochs = [tuple(found.shard_at(4 * epoch + i) for i in range(4)) for epoch in range(6)]
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
    found = stream(planted_store, batch_rows=2000, shards=(1, 3))
    (rows,) = rows_of(found, 0, 1)
    expected = torch.cat([stored(planted_store, found.shard_at(place)) for place in range(5)])
    assert torch.equal(rows, expected[:2000])


def test_no_shard_is_read_that_is_not_used(planted_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read = RowReader.shard

    def counted(self: RowReader, shard: int, *more: str) -> Columns:
        asked.append(shard)
        return read(self, shard, *more)

    monkeypatch.setattr(RowReader, "shard", counted)
    found = stream(planted_store, batch_rows=ROWS_PER_SHARD)
    rows_of(found, 0, 3)
    assert asked == [found.shard_at(place) for place in range(3)]


def test_a_batch_that_the_processes_cannot_share_evenly_is_refused(planted_store: Path) -> None:
    with pytest.raises(RequestError, match="batch_rows is 100, not a multiple of the 3 processes"):
        stream(planted_store, world_size=3)


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 17), (2.0, 35), (0.5, 8), (0.001, 1)])
def test_epochs_are_whole_steps_and_at_least_one(planted_store: Path, epochs: float, steps: int) -> None:
    assert stream(planted_store).steps_for(epochs) == steps


def test_a_damaged_shard_stops_the_stream_by_name(
    planted_store: Path, copy_of: Callable[[Path], Path]
) -> None:
    store = copy_of(planted_store)
    (store / "arrays.zarr/sites/attn.z/00/c.3.0.0").unlink()
    found = stream(store, shards=(0, 3), batch_rows=2 * ROWS_PER_SHARD)
    with pytest.raises(DamageError, match=r"c\.3\.0\.0"):
        next(found.batches(0, 1))
