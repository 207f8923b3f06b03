"""The columns that a fit reads of a shard."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from alens import open_cache
from alens.errors import DamageError, RequestError
from alens.heads import Heads
from alens.rows.columns import Columns, RowReader
from alens.rows.teacher import CompressedTeacher, ExactTeacher

from ..damage import flip

CPU = torch.device("cpu")


def reader(store: Path, **changed: object) -> RowReader:
    every = Heads.grid((1, 3), range(6))
    given = {"heads": every, "teacher": "compressed", "min_position": 1, "device": CPU}
    return RowReader(open_cache(store), **{**given, **changed})


@pytest.mark.parametrize("min_position", [0, 1, 40])
def test_rows_before_min_position_are_left_out(demo_cache: Path, min_position: int) -> None:
    rows = reader(demo_cache, min_position=min_position)
    columns = rows.shard(2, "rows/position")
    assert columns.by_name["rows/position"].min() == min_position
    assert len(columns) == rows.rows_per_shard == 16 * (64 - min_position)


def test_all_columns_keep_the_rows_together(demo_cache: Path) -> None:
    cache = open_cache(demo_cache)
    columns = reader(demo_cache).shard(2, "rows/sequence", "rows/position")
    stored = cache.read_shard("rows/sequence", 2).astype(int) * 64 + cache.read_shard("rows/position", 2)
    wanted = columns.by_name["rows/sequence"].astype(int) * 64 + columns.by_name["rows/position"]
    at = [int(np.flatnonzero(stored == row)[0]) for row in wanted[:50]]
    np.testing.assert_array_equal(columns.by_name["targets/ids"][:50], cache.read_shard("targets/ids", 2)[at])
    np.testing.assert_array_equal(
        columns.by_name["sites/attn.z/03"][:50], cache.read_shard("sites/attn.z/03", 2)[at]
    )


def test_heads_come_in_the_order_asked_for(demo_cache: Path) -> None:
    some = reader(demo_cache, heads=Heads.grid((1, 3), (4, 0)))
    whole = reader(demo_cache)
    np.testing.assert_array_equal(some.z(some.shard(0), 3), whole.z(whole.shard(0), 3)[:, [4, 0]])


def test_z_stays_float16_until_it_is_used(demo_cache: Path) -> None:
    rows = reader(demo_cache)
    assert rows.z(rows.shard(0), 1).dtype == torch.float16


def test_each_kind_of_teacher_is_made_from_its_own_arrays(demo_cache: Path) -> None:
    compressed, exact = reader(demo_cache), reader(demo_cache, teacher="exact")
    assert isinstance(compressed.teacher(compressed.shard(0)), CompressedTeacher)
    assert isinstance(exact.teacher(exact.shard(0)), ExactTeacher)
    assert "targets/final" not in compressed.names()
    assert "targets/tail_ids" not in exact.names()


def test_the_exact_teacher_agrees_with_the_compressed_one_on_the_top_tokens(demo_cache: Path) -> None:
    compressed, exact = reader(demo_cache), reader(demo_cache, teacher="exact")
    top = compressed.teacher(compressed.shard(0)).block(slice(0, 200))
    whole = exact.teacher(exact.shard(0)).block(slice(0, 200))
    torch.testing.assert_close(
        whole.probs_BV.gather(1, top.ids_BJ[:, :16]), top.weights_BJ[:, :16], rtol=2e-2, atol=1e-4
    )


def test_columns_are_cut_and_joined_row_by_row() -> None:
    columns = Columns({"a": np.arange(10), "b": np.arange(20).reshape(10, 2)})
    joined = Columns.join([columns.rows(8, 10), columns.rows(0, 1)])
    assert joined.by_name["a"].tolist() == [8, 9, 0]
    assert joined.by_name["b"].tolist() == [[16, 17], [18, 19], [0, 1]]


def test_a_layer_that_is_not_cached_is_refused(demo_cache: Path) -> None:
    with pytest.raises(RequestError, match=r"layer 4 is not in .*: it holds layers 0, 1, 2, 3"):
        reader(demo_cache, heads=Heads.grid((4,), range(6)))


def test_a_head_that_does_not_exist_is_refused(demo_cache: Path) -> None:
    with pytest.raises(RequestError, match="head 6 does not exist: demo has heads 0 to 5"):
        reader(demo_cache, heads=Heads.grid((1,), (6,)))


def test_a_min_position_past_the_end_of_a_sequence_is_refused(demo_cache: Path) -> None:
    with pytest.raises(RequestError, match=r"min_position is 64: .* positions 0 to 63"):
        reader(demo_cache, min_position=64)


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)


def test_several_arrays_are_read_at_once_and_no_more_than_there_are_threads(
    demo_cache: Path, three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the first three waits for the two others: one thread alone would wait for ever."""
    together, lock, running, most = threading.Barrier(3), threading.Lock(), 0, 0
    taken = itertools.count()
    rows = reader(demo_cache)
    read = rows._read

    def watched(name: str, at: slice) -> np.ndarray:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if next(taken) < 3:
            together.wait(60)
        try:
            return read(name, at)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(rows, "_read", watched)
    columns = rows.shard(2, "rows/position")
    assert most == 3
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    alone = reader(demo_cache).shard(2, "rows/position")
    assert list(columns.by_name) == list(alone.by_name)
    for name, values in alone.by_name.items():
        np.testing.assert_array_equal(columns.by_name[name], values)


@pytest.mark.parametrize("threads", [1, 3])
def test_of_several_damaged_files_the_first_is_named(
    demo_cache: Path,
    copy_of: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    damaged = copy_of(demo_cache)
    for name in ("targets/tail_ids", "targets/log_probs", "sites/attn.z/03"):
        (file,) = (damaged / "arrays.zarr" / name).glob("c.2*")
        flip(file)
    with pytest.raises(DamageError, match=r"sites/attn\.z/03/c\.2\S* is not the file that was committed"):
        reader(damaged).shard(2)
    assert len(reader(damaged).shard(1)) > 0
