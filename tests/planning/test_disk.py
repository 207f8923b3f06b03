"""The probe of the disk, and what a file system has free."""

import os
from pathlib import Path

import pytest

from alens.errors import RunError
from alens.planning import disk


def space(**changes: int | None) -> disk.DiskSpace:
    numbers = {"needed_bytes": 10, "free_bytes": 10, "needed_inodes": 5, "free_inodes": 5}
    return disk.DiskSpace(where="/x", **{**numbers, **changes})


def test_what_does_not_fit_is_said_with_its_numbers() -> None:
    assert space().shortfall() is None
    assert space(free_inodes=None).shortfall() is None
    assert space(free_bytes=9).shortfall() == "does not fit: needs 10 bytes, free 9 in /x"
    assert space(free_inodes=4).shortfall() == "does not fit: needs 5 files and directories, free 4 in /x"


def test_the_place_that_is_tried(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert disk.nearest_folder(tmp_path / "a/b/c") == tmp_path
    assert disk.nearest_folder(tmp_path / "there") == tmp_path  # STORE itself is left alone
    assert disk.nearest_folder(Path("/proc")) == Path("/proc")  # another file system
    assert disk.nearest_folder(Path("relative/store")) == Path.cwd()


def test_the_file_of_the_probe_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Path]] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        seen.append(list(tmp_path.iterdir()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    rates = disk.probe(tmp_path, 0.05)
    assert len(seen) > disk.SYNCS
    assert not any(seen)
    assert 0 < rates.probe_bytes <= disk.MOST_BYTES
    assert min(rates.write_s_a_byte, rates.read_s_a_byte, rates.hash_s_a_byte, rates.sync_s) > 0


def test_a_small_disk_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free", lambda _: (9 * 2**20, None, 4096))
    assert disk.probe(tmp_path, 0.5).probe_bytes <= 9 * 2**20 / 8
    monkeypatch.setattr(disk, "free", lambda _: (2**20, None, 4096))
    with pytest.raises(RunError, match=r"no room to try .*: 1,048,576 bytes are free, 8,388,608 are needed"):
        disk.probe(tmp_path, 0.5)


def test_a_place_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free", lambda _: (10**9, None, 4096))
    with pytest.raises(RunError, match="cannot write"):
        disk.probe(Path("/proc"), 0.05)
