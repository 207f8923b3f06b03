"""STORE on a disk that is too small: the run ends with one line, what was committed stays, and more room lets it finish.

Needs root, to mount a small file system in memory. alens asks for free space before each shard; to run into a true
"no space left" in the middle of a write, the answer to that question is forged.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

KEPT_FREE_BYTES = 16 * 2**20
"""What alens keeps free beside a shard."""

SPARE_BYTES = KEPT_FREE_BYTES + 4 * 2**20

Mount = Callable[[int], Path]


def size_option(size_bytes: int) -> str:
    return f"size={size_bytes // 4096 * 4096}"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Mount]:
    """Mounts a file system of so many bytes and gives a STORE on it."""
    mounted: list[Path] = []

    def mount(size_bytes: int) -> Path:
        where = tmp_path / f"disk-{len(mounted)}"
        where.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", size_option(size_bytes), "tmpfs", str(where)]
        if (
            os.geteuid()
            or not shutil.which("mount")
            or subprocess.run(command, capture_output=True).returncode
        ):
            pytest.skip("no right to mount a small file system: needs root")
        mounted.append(where)
        return where / "store"

    yield mount
    for where in mounted:
        subprocess.run(["umount", "-l", str(where)], check=True)


def enlarge(store: Path, size_bytes: int) -> None:
    subprocess.run(["mount", "-o", f"remount,{size_option(size_bytes)}", str(store.parent)], check=True)


@contextlib.contextmanager
def forged_free_space() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 0, 10**12))
        yield


def taken(files: Iterable[Path]) -> int:
    """The bytes that files take on such a disk: whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files if path.is_file())


@pytest.fixture(scope="module")
def sizes(judge: Any) -> tuple[int, int]:
    """Bytes of the undisturbed cache without its shards, and with them."""
    store = judge.undisturbed
    whole = taken(store.rglob("*"))
    shards = [path for path in store.glob("arrays.zarr/**/c.*") if "model" not in path.parts]
    return whole - taken([*shards, *store.glob("commits/[0-9]*.json"), store / "MANIFEST.json"]), whole


def in_eighths(first: int, last: int) -> list[int]:
    return [first + (last - first) * step // 8 for step in range(9)]


def fails_then_seals(
    work: Any, judge: Any, run_alens: Any, one_line: Any, store: Path, enough: int
) -> int | None:
    """The full disk, the reader, more room, the whole cache; how many shards were committed before."""
    outcome = run_alens(*work.arguments(store))
    if outcome.code == 0:
        judge.assert_whole(store)
        return None
    one_line(outcome, 1, str(store.parent), "run again")
    assert "No space left on device" in outcome.stderr or "no space for the next shard" in outcome.stderr
    committed = judge.assert_right(store)
    kept = {path: path.read_bytes() for path in (store / "commits").glob("[0-9]*.json")}
    enlarge(store, enough)
    again = run_alens(*work.arguments(store))
    assert again.code == 0, again
    assert all(path.read_bytes() == before for path, before in kept.items())  # not written again: kept
    judge.assert_whole(store)
    return len(committed or ())


def test_a_disk_that_is_full_before_the_first_shard(
    work: Any, judge: Any, run_alens: Any, one_line: Any, small_disk: Mount, sizes: tuple[int, int]
) -> None:
    skeleton, whole = sizes
    counts = [
        fails_then_seals(work, judge, run_alens, one_line, small_disk(size), whole + SPARE_BYTES)
        for size in (4 * 4096, skeleton // 2, skeleton + 2**20, whole + 2**20)
    ]
    assert counts == [0, 0, 0, 0]


def test_a_disk_that_is_too_full_for_the_second_shard(
    work: Any, judge: Any, run_alens: Any, one_line: Any, small_disk: Mount, sizes: tuple[int, int]
) -> None:
    """The free space is asked for before a shard, so that nothing of it is computed or written in vain."""
    skeleton, whole = sizes
    size = skeleton + (whole - skeleton) * 3 // 4 + KEPT_FREE_BYTES
    assert fails_then_seals(work, judge, run_alens, one_line, small_disk(size), whole + SPARE_BYTES) == 1


@pytest.mark.slow
def test_a_disk_that_fills_up_in_the_middle_of_a_write(
    work: Any, judge: Any, run_alens: Any, one_line: Any, small_disk: Mount, sizes: tuple[int, int]
) -> None:
    skeleton, whole = sizes
    committed = []
    with forged_free_space():
        for size in (*in_eighths(4096, skeleton), *in_eighths(skeleton, whole)[1:-1], whole - 4096):
            store = small_disk(size)
            committed.append(fails_then_seals(work, judge, run_alens, one_line, store, whole + SPARE_BYTES))
    print(f"\ncommitted before the disk was full, over {len(committed)} sizes:", committed)
    assert {0, 1} <= set(committed)
