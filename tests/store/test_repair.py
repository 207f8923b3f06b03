"""Repair queues the documents that make damaged files count, and nothing else."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from alens.errors import RunError
from alens.store import foreign
from alens.store.arrays import all_arrays
from alens.store.cache_reader import open_cache
from alens.store.repair import repair
from alens.store.verify import verify_cache
from alens.store.writer import put_manifest

from ..damage import flip
from ..folders import contents, states
from .whole_caches import QUEUED, Z, write


@pytest.mark.parametrize("name", QUEUED)
@pytest.mark.parametrize("gone", [True, False])
def test_repair_moves_what_makes_it_count_and_nothing_else(whole_store: Path, name: str, gone: bool) -> None:
    path = whole_store / name
    path.unlink() if gone else path.write_bytes(path.read_bytes()[:-1])
    before, expected = states(whole_store), [n for n in QUEUED[name] if not gone or n != name]
    if gone and name == "MANIFEST.json":
        expected = []
    assert list(repair(whole_store, verify_cache(whole_store).findings)) == expected
    moved = {f"aside/1/{n}" if n in expected else n: state for n, state in before.items()}
    assert states(whole_store) == moved  # moved, byte for byte
    assert repair(whole_store, verify_cache(whole_store).findings) == {}


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "swap"])
def test_a_queued_shard_is_written_anew_and_only_that(
    every: Path, wholes: dict[str, Path], values: Any, damage: str
) -> None:
    whole, before, plan = contents(every), states(every), open_cache(every).plan
    file, other = every / f"{Z}/c.1.0.0", every / f"{Z}/c.2.0.0"
    shards = {1, 2} if damage == "swap" else {1}
    match damage:
        case "flip":
            flip(file, -1)
        case "cut":
            file.write_bytes(b"")
        case "delete":
            file.unlink()
        case "swap":
            one, two = file.read_bytes(), other.read_bytes()
            file.write_bytes(two), other.write_bytes(one)
    queued = {f"commits/{shard:06d}.json" for shard in shards} | {"MANIFEST.json"}
    assert set(repair(every, verify_cache(every).findings)) == queued
    missing = set(range(3)) - set(open_cache(every).shards)
    assert missing == shards
    assert verify_cache(every).whole
    for shard in sorted(missing):
        write(every, plan, values, shard)
    put_manifest(every, plan, open_cache(every).files_by_shard())
    shutil.rmtree(every / "aside")  # no part of the cache: verify names nothing in it
    assert contents(every) == whole
    assert verify_cache(every).findings == ()
    rewritten = {n for n, state in states(every).items() if state != before[n]}
    assert rewritten == queued | {
        f"arrays.zarr/{key}" for shard in shards for key in foreign.shard_keys(all_arrays(plan), shard)
    }


def test_a_disk_that_refuses_is_one_line(whole_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole_store / f"{Z}/c.1.0.0").unlink()

    def refuse(path: str, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(RunError, match=r"^cannot write .*MANIFEST.json: Read-only file system; [^\n]*$"):
        repair(whole_store, verify_cache(whole_store).findings)


def test_each_repair_has_a_folder_aside_of_its_own(whole_store: Path) -> None:
    plan, record = (whole_store / "plan.json").read_bytes(), whole_store / "commits/000001.json"
    for number in (1, 2):
        record.write_bytes(f"damaged, time {number}".encode())
        assert (
            repair(whole_store, verify_cache(whole_store).findings)["commits/000001.json"]
            == f"aside/{number}/commits/000001.json"
        )
        assert (whole_store / f"aside/{number}/commits/000001.json").read_text() == f"damaged, time {number}"
    assert verify_cache(whole_store).whole and (whole_store / "plan.json").read_bytes() == plan
