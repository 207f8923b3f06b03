"""A cache has the same bytes however it was written, and what is written is never put at risk."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alens import CacheRequest, write_cache
from alens.cache import shard as shards
from alens.cache.write_cache import shards_to_write
from alens.errors import DamageError, StoppedError
from alens.job.progress import Progress
from alens.job.worker import Worker
from alens.store.cache_reader import open_cache
from alens.store.schema import Plan

from ..folders import array_hashes, states

Request = Callable[..., CacheRequest]
Copy = Callable[[Path], Path]


def manifest(store: Path) -> dict[str, Any]:
    return dict(json.loads((store / "MANIFEST.json").read_text()))


def stop_after(calls: int) -> Callable[[], bool]:
    """Says stop after `calls` questions; it is asked before each block of the model and of logits, and after each batch."""
    counter = itertools.count(1)
    return lambda: next(counter) > calls


@pytest.fixture(scope="module")
def demo_plan(demo_cache: Path) -> Plan:
    """6 shards."""
    return open_cache(demo_cache).plan


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10])
def test_workers_share_all_shards_and_none_twice(demo_plan: Plan, count: int) -> None:
    shares = [shards_to_write(demo_plan, Worker(index=index, count=count), ()) for index in range(count)]
    assert sorted(shard for share in shares for shard in share) == list(range(6))


def test_committed_shards_are_not_written_again(demo_plan: Plan) -> None:
    assert shards_to_write(demo_plan, Worker(index=1, count=2), {1, 2}) == [3, 5]


def test_one_run_seals_the_cache(small_cache: Path) -> None:
    cache = open_cache(small_cache)
    assert (cache.sealed, cache.shards, cache.plan.rows) == (True, (0, 1, 2, 3, 4, 5), 768)
    assert manifest(small_cache)["plan"] == cache.plan.identity


def test_workers_in_any_order_write_the_same_bytes(
    tmp_path: Path, small_request: Request, small_cache: Path
) -> None:
    store = tmp_path / "store"
    for done, index in enumerate((2, 0, 1), 1):
        summary = write_cache(small_request(store, worker=Worker(index=index, count=3)))
        assert (summary.shards_written, summary.rows_written) == (2, 256)
        assert summary.cache.sealed == (done == 3)
    assert array_hashes(store) == array_hashes(small_cache)
    assert manifest(store) == manifest(small_cache)


def test_a_cache_stopped_again_and_again_has_the_same_bytes(
    tmp_path: Path, small_request: Request, small_cache: Path
) -> None:
    store, stops = tmp_path / "store", 0
    while not (store / "MANIFEST.json").exists():
        try:
            # The text is read in one go, so the run gets as many calls as this takes.
            write_cache(
                small_request(store), should_stop=stop_after(30 if (store / "plan.json").exists() else 40)
            )
        except StoppedError as error:
            assert "run again to go on" in str(error)
            stops += 1
        assert stops < 20
    assert stops >= 2
    assert array_hashes(store) == array_hashes(small_cache)
    assert manifest(store) == manifest(small_cache)


def test_a_stop_in_the_middle_of_a_shard_leaves_that_shard_out(
    tmp_path: Path, small_request: Request
) -> None:
    store = tmp_path / "store"
    shards_seen: list[int] = []

    def stop_in_second_shard() -> bool:
        return bool(shards_seen) and shards_seen[-1] > 128

    def watch(progress: Progress) -> None:
        if progress.stage == "cache":
            shards_seen.append(progress.done)

    with pytest.raises(StoppedError, match="128 of this worker's 768 rows are committed"):
        write_cache(small_request(store), report=watch, should_stop=stop_in_second_shard)
    assert open_cache(store).shards == (0,)


def test_a_stop_is_heard_between_the_blocks_of_a_batch(
    tmp_path: Path, small_request: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch stops in the third of the model's four blocks, and leaves no hooks on the model."""
    begun: list[int] = []
    plain = shards.compute

    def compute(model: Any, *given: Any) -> Any:
        handles = [
            block.register_forward_pre_hook(lambda *_, number=number: begun.append(number))
            for number, block in enumerate(model.bridge.blocks)
        ]
        hooks = [len(block._forward_pre_hooks) for block in model.bridge.blocks]
        try:
            return plain(model, *given)
        finally:
            assert [len(block._forward_pre_hooks) for block in model.bridge.blocks] == hooks
            for handle in handles:
                handle.remove()

    monkeypatch.setattr(shards, "compute", compute)
    with pytest.raises(StoppedError, match="0 of this worker's 768 rows are committed"):
        write_cache(small_request(tmp_path / "store"), should_stop=lambda: len(begun) > 2)
    assert begun == [0, 1, 2]


def test_progress_counts_to_the_end(tmp_path: Path, small_request: Request) -> None:
    seen: list[Progress] = []
    write_cache(small_request(tmp_path / "store"), report=seen.append)
    rows = [progress for progress in seen if progress.stage == "cache"]
    assert [progress.done for progress in rows] == list(range(0, 769, 64))
    assert {progress.total for progress in rows} == {768}


def test_running_again_writes_nothing(small_cache: Path, copy_of: Copy, small_request: Request) -> None:
    store = copy_of(small_cache)
    before = states(store)
    summary = write_cache(small_request(store))
    assert (summary.shards_written, summary.rows_written) == (0, 0)
    assert states(store) == before


@pytest.mark.parametrize(("sealed", "content"), [(True, None), (True, b"{"), (False, None)])
def test_a_shard_without_a_true_record_is_written_again(
    small_cache: Path, copy_of: Copy, small_request: Request, sealed: bool, content: bytes | None
) -> None:
    store = copy_of(small_cache)
    if not sealed:
        (store / "MANIFEST.json").unlink()
    record = store / "commits/000002.json"
    record.unlink() if content is None else record.write_bytes(content)
    assert write_cache(small_request(store)).shards_written == 1
    assert array_hashes(store) == array_hashes(small_cache)
    assert manifest(store) == manifest(small_cache)


def test_a_damaged_shard_whose_record_goes_is_mended(
    small_cache: Path, copy_of: Copy, small_request: Request
) -> None:
    """The error names `alens verify --repair`, and that repairs the cache."""
    store = copy_of(small_cache)
    file = store / "arrays.zarr/sites/attn.z/02/c.4.0.0"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DamageError) as caught:
        open_cache(store).read_shard("sites/attn.z/02", 4)
    assert f"{file} has 100 bytes" in str(caught.value)
    assert "`alens verify --repair` queues shard 4 for rewriting" in str(caught.value)
    (store / "commits/000004.json").unlink()
    assert write_cache(small_request(store)).shards_written == 1
    assert array_hashes(store) == array_hashes(small_cache)


def test_what_a_job_left_that_died_before_its_plan_is_written_over(
    small_cache: Path, copy_of: Copy, small_request: Request
) -> None:
    store = copy_of(small_cache)
    (store / "plan.json").unlink()
    (store / "MANIFEST.json").unlink()
    for record in (store / "commits").iterdir():
        record.unlink()
    (store / "tokens.npy").write_bytes(b"cut")
    (store / ".tokens.npy.host-1-abc.partial").write_bytes(b"left over")
    write_cache(small_request(store))
    assert array_hashes(store) == array_hashes(small_cache)
    assert manifest(store) == manifest(small_cache)
