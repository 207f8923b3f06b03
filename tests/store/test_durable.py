import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from alens.store import durable

from ..folders import entry_names


def test_put_joins_its_parts_and_makes_the_folders(tmp_path: Path) -> None:
    durable.put(tmp_path / "a" / "b", b"one ", memoryview(b"two"))
    assert (tmp_path / "a" / "b").read_bytes() == b"one two"
    assert entry_names(tmp_path / "a") == ["b"]


def test_put_replaces_a_file(tmp_path: Path) -> None:
    durable.put(tmp_path / "file", b"old and longer")
    durable.put(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_put_leaves_the_old_file_and_no_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, failure: BaseException
) -> None:
    durable.put(tmp_path / "file", b"old")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(failure)):
        durable.put(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert entry_names(tmp_path) == ["file"]


def test_a_stream_that_fails_midway_leaves_nothing(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"some"
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        durable.put_stream(tmp_path / "file", parts())
    assert entry_names(tmp_path) == []


def test_file_and_folder_are_synced_around_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "file")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    durable.put(tmp_path / "file", b"data")
    assert calls == ["file", "rename", "folder"]


def test_remove_takes_a_file_away_and_accepts_its_absence(tmp_path: Path) -> None:
    durable.put(tmp_path / "file", b"data")
    durable.remove(tmp_path / "file")
    durable.remove(tmp_path / "file")
    assert entry_names(tmp_path) == []


@pytest.mark.parametrize("from_disk", [False, True])
def test_sha256_of_a_file_of_several_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_disk: bool
) -> None:
    monkeypatch.setattr(durable, "READ_BYTES", 100)
    data = bytes(range(256)) * 3
    (tmp_path / "file").write_bytes(data)
    assert durable.sha256_of(tmp_path / "file", from_disk=from_disk) == hashlib.sha256(data).hexdigest()
