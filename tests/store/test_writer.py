import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from alens.errors import DamageError, RunError
from alens.store import durable
from alens.store.cache_reader import open_cache
from alens.store.schema import Plan
from alens.store.writer import ShardWriter, put_skeleton

from ..folders import contents

Values = Callable[[Plan, int], dict[str, Any]]


@pytest.fixture
def skeleton(tmp_path: Path, tiny_plan: Plan, tiny_weights: dict[str, Any]) -> Path:
    put_skeleton(tmp_path / "store", tiny_plan, tiny_weights)
    return tmp_path / "store"


@contextmanager
def failing_at(call: str, number: int) -> Iterator[list[int]]:
    """The `number`-th os.fsync or os.replace fails, and all later ones, as on a disk that is full."""
    original, calls = getattr(os, call), [0]

    def counted(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] >= number:
            raise OSError(28, "No space left on device")
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, counted)
        yield calls


def test_what_is_written_is_read_back(sealed_tiny: Path, tiny_plan: Plan, values: Values) -> None:
    cache = open_cache(sealed_tiny)
    for shard in range(3):
        for name, expected in values(tiny_plan, shard).items():
            np.testing.assert_array_equal(cache.read_shard(name, shard), expected, err_msg=name)


def test_weights_are_read_back(sealed_tiny: Path, tiny_weights: dict[str, Any]) -> None:
    cache = open_cache(sealed_tiny)
    for name in ("W_O", "W_U", "b_U"):
        np.testing.assert_array_equal(cache.weights(name), tiny_weights[f"model/{name}"])


def test_the_record_names_every_file_with_size_and_hash(sealed_tiny: Path, tiny_plan: Plan) -> None:
    record = json.loads((sealed_tiny / "commits/000001.json").read_text())
    assert (record["plan"], record["shard"], record["note"]) == (tiny_plan.identity, 1, "by a test")
    collected = [path for path in (sealed_tiny / "arrays.zarr").rglob("c.1*") if "model" not in path.parts]
    assert record["files"] == {
        str(path.relative_to(sealed_tiny / "arrays.zarr")): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in collected
    }


def test_shards_of_fill_values_are_files_too(skeleton: Path, tiny_plan: Plan, values: Values) -> None:
    empty = {name: np.full_like(array, 0) for name, array in values(tiny_plan, 0).items()}
    for array in empty.values():
        array[...] = np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    ShardWriter(skeleton, tiny_plan).write(0, empty, {})
    stored = zarr.open_array(skeleton / "arrays.zarr", path="targets/log_probs", mode="r")
    assert (skeleton / "arrays.zarr/targets/log_probs/c.0.0").is_file() and np.isnan(stored[:32]).all()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_at_any_point_leaves_a_whole_shard_or_none(
    skeleton: Path, tiny_plan: Plan, values: Values, call: str
) -> None:
    """Writing fails at the first, second, ... call until one run passes. The next write then mends the shard."""
    whole = values(tiny_plan, 1)
    clean = skeleton.with_name("clean")
    shutil.copytree(skeleton, clean)
    ShardWriter(clean, tiny_plan).write(1, whole, {})
    for number in range(1, 200):
        with failing_at(call, number) as calls:
            try:
                ShardWriter(skeleton, tiny_plan).write(1, whole, {})
            except RunError as error:
                assert "No space left on device" in str(error)
                assert "nothing that was committed is lost" in str(error)
        cache = open_cache(skeleton)
        assert not list(skeleton.rglob("*.partial"))
        for shard in cache.shards:  # a record that is there is true
            for name, expected in whole.items():
                np.testing.assert_array_equal(cache.read_shard(name, shard), expected)
        if calls[0] < number:
            break
    assert number > 10
    assert contents(skeleton) == contents(clean)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_skeleton_that_fails_at_any_point_has_no_plan(
    tmp_path: Path, tiny_plan: Plan, tiny_weights: dict[str, Any], call: str
) -> None:
    for number in range(1, 400, 9):
        with failing_at(call, number) as calls:
            try:
                put_skeleton(tmp_path, tiny_plan, tiny_weights)
            except RunError:
                # The one step that may fail with the plan in place is the sync of its folder.
                assert not (tmp_path / "plan.json").exists() or open_cache(tmp_path).plan == tiny_plan
        if calls[0] < number:
            break
    assert number > 10
    np.testing.assert_array_equal(open_cache(tmp_path).weights("W_U"), tiny_weights["model/W_U"])


def test_the_record_comes_last_and_nothing_is_removed(
    skeleton: Path, tiny_plan: Plan, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(skeleton, tiny_plan)
    writer.write(0, values(tiny_plan, 0), {})
    events: list[str] = []
    put_stream, remove = durable.put_stream, durable.remove
    monkeypatch.setattr(
        durable, "put_stream", lambda path, parts: (events.append(f"+{path.name}"), put_stream(path, parts))
    )
    monkeypatch.setattr(durable, "remove", lambda path: (events.append(f"-{path.name}"), remove(path)))
    writer.write(0, values(tiny_plan, 0), {})
    assert events[-1] == "+000000.json"
    assert len(events) > 5
    assert all(event.startswith("+c.0") for event in events[:-1])


def test_a_torn_shard_file_does_not_stop_its_rewriting(
    skeleton: Path, tiny_plan: Plan, values: Values
) -> None:
    for torn in (b"", b"\x00" * 10):
        writer = ShardWriter(skeleton, tiny_plan)
        (skeleton / "arrays.zarr/rows/token/c.0").write_bytes(torn)
        writer.write(0, values(tiny_plan, 0), {})
        np.testing.assert_array_equal(
            open_cache(skeleton).read_shard("rows/token", 0), values(tiny_plan, 0)["rows/token"]
        )


def test_bytes_that_change_on_their_way_to_disk_are_not_committed(
    skeleton: Path, tiny_plan: Plan, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def damaging(source: Path, target: Path) -> None:
        if Path(target).name == "c.0.0.0.0":
            with Path(source).open("r+b") as file:
                file.write(b"\xff\xff\xff\xff")
        replace(source, target)

    monkeypatch.setattr(os, "replace", damaging)
    with pytest.raises(DamageError, match=r"c\.0\.0\.0\.0 reads back other bytes than were written"):
        ShardWriter(skeleton, tiny_plan).write(0, values(tiny_plan, 0), {})
    assert open_cache(skeleton).shards == ()


def test_too_little_free_space_is_noticed_before_anything_is_touched(
    skeleton: Path, tiny_plan: Plan, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = ShardWriter(skeleton, tiny_plan)
    writer.write(0, values(tiny_plan, 0), {})
    before = contents(skeleton)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(RunError, match=r"no space for the next shard in .*1,000 are free"):
        writer.write(0, values(tiny_plan, 0), {})
    assert contents(skeleton) == before


def test_a_disk_that_refuses_in_the_middle_is_one_line(
    skeleton: Path, tiny_plan: Plan, values: Values
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))  # stats/output and outer are larger
        with pytest.raises(
            RunError, match=r"cannot write .*File too large; nothing that was committed is lost"
        ):
            ShardWriter(skeleton, tiny_plan).write(0, values(tiny_plan, 0), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_cache(skeleton).shards == ()
    assert not list(skeleton.rglob("*.partial"))


def test_rounded_values_take_less_room_and_the_same_bytes_each_time(
    tmp_path: Path, write_tiny: Callable[..., Path]
) -> None:
    """Blosc must be deterministic: a shard that is written again is the same file."""
    stores = [
        write_tiny(tmp_path / name, keep_bits=4, sites=("mlp_out",), seq_len=16, rows_per_shard=64)
        for name in ("a", "b")
    ]
    first, second = (contents(store) for store in stores)
    assert first == second
    file = "arrays.zarr/sites/attn.z/00/c.0.0.0"
    assert len(first[file]) < 64 * 2 * 4 * 2
