"""STORE where nothing can be written, where something else is, or that goes away while it is written.

One line, the right exit code, and nothing outside STORE touched.
"""

import dataclasses
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alens import AlensError, demo, write_cache
from alens.job.progress import Progress

NOBODY = 65534

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="mounts a file system or becomes another user: needs root"
)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in sorted(folder.rglob("*"))}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "disk"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(where)], capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    yield where
    if where.is_mount():
        subprocess.run(["umount", "-l", str(where)], check=True)


def after_first_shard(act: Callable[[], None]) -> Callable[[Progress], None]:
    """A watcher that acts once, when the second shard has begun."""
    done = False

    def report(progress: Progress) -> None:
        nonlocal done
        if progress.stage == "cache" and progress.done > 128 and not done:
            done = True
            act()

    return report


# Where it never begins


@pytest.mark.parametrize("kind", ["file", "link to nothing", "below a file", "link to a file"])
def test_a_store_that_cannot_be_a_directory(
    work: Any, run_alens: Any, one_line: Any, tmp_path: Path, kind: str
) -> None:
    file, store = tmp_path / "file", tmp_path / "store"
    file.write_text("precious")
    if kind == "file":
        store = file
    elif kind == "below a file":
        store = file / "store"
    else:
        store.symlink_to(file if kind == "link to a file" else tmp_path / "nowhere")
    before = state(tmp_path)
    outcome = run_alens(*work.arguments(store))
    assert outcome.code in (1, 2)
    one_line(outcome, outcome.code, str(store))
    assert state(tmp_path) == before
    assert file.read_text() == "precious"


@pytest.mark.parametrize("name", ["two words", "it's", 'a "b" c', "dollar $HOME `id`", "new\nline", "ümlaut 字", "-dash", "star*[0-9]?"])  # fmt: skip
def test_a_store_with_a_name_of_its_own(
    work: Any, judge: Any, run_alens: Any, memory_folder: Path, name: str
) -> None:
    store = memory_folder / name / name
    assert run_alens(*work.arguments(store)).code == 0
    judge.assert_whole(store)
    assert run_alens(*work.arguments(store)).code == 0
    assert [path.name for path in memory_folder.iterdir()] == [name]


def test_a_link_to_a_directory_is_followed(
    work: Any, judge: Any, run_alens: Any, memory_folder: Path
) -> None:
    (memory_folder / "real").mkdir()
    (memory_folder / "store").symlink_to("real")
    assert run_alens(*work.arguments(memory_folder / "store")).code == 0
    judge.assert_whole(memory_folder / "real")


@needs_root
@pytest.mark.parametrize("stage", ["empty", "half", "sealed"])
def test_a_store_on_a_disk_that_is_read_only(
    work: Any, judge: Any, run_alens: Any, one_line: Any, disk: Path, stage: str
) -> None:
    store = disk / "store"
    if stage != "empty":
        shutil.copytree(judge.undisturbed, store)
    if stage == "half":
        (store / "MANIFEST.json").unlink()
        (store / "commits/000001.json").unlink()
    before = state(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    outcome = run_alens(*work.arguments(store))
    if stage == "sealed":
        assert outcome.code == 0
    else:
        one_line(outcome, 1, str(store), "Read-only file system")
    assert state(disk) == before
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert run_alens(*work.arguments(store)).code == 0
    judge.assert_whole(store)


@needs_root
@pytest.mark.parametrize("stage", ["empty", "half"])
def test_a_store_without_the_right_to_write(
    work: Any, judge: Any, run_alens: Any, one_line: Any, memory_folder: Path, stage: str
) -> None:
    """As another user for a moment, who may read all that the run needs."""
    memory_folder.chmod(0o755)
    text = Path(shutil.copy(work.text, memory_folder / "text.txt"))
    text.chmod(0o644)
    store = memory_folder / "store"
    if stage == "half":
        shutil.copytree(judge.undisturbed, store)
        (store / "MANIFEST.json").unlink()
        (store / "commits/000001.json").unlink()
    before = state(memory_folder)
    os.seteuid(NOBODY)
    try:
        if not os.access(demo.MODEL / "config.json", os.R_OK, effective_ids=True):
            pytest.skip("another user may not read this installation")
        outcome = run_alens(*dataclasses.replace(work, text=text).arguments(store))
    finally:
        os.seteuid(0)
    one_line(outcome, 1, str(store), "Permission denied")
    assert state(memory_folder) == before


# Where it goes away


def test_a_store_that_is_deleted_while_it_is_written(work: Any, judge: Any, memory_folder: Path) -> None:
    store, bystander = memory_folder / "store", memory_folder / "bystander"
    bystander.write_text("untouched")
    before = state(memory_folder)
    with pytest.raises(AlensError) as caught:
        write_cache(work.request(store), report=after_first_shard(lambda: shutil.rmtree(store)))
    assert str(store) in str(caught.value) and "\n" not in str(caught.value)
    assert judge.assert_right(store) is None  # no plan: no cache
    shutil.rmtree(
        store, ignore_errors=True
    )  # what is left is told apart from a cache, and may be cleared away
    assert {path: was for path, was in state(memory_folder).items() if path == str(bystander)} == before
    write_cache(work.request(store))
    judge.assert_whole(store)


@pytest.mark.parametrize("part", ["arrays.zarr", "commits", "plan.json", "tokens.npy"])
def test_a_part_of_a_store_that_is_deleted_while_it_is_written(
    work: Any, judge: Any, memory_folder: Path, part: str
) -> None:
    """Whatever the run makes of it, no wrong number is called committed."""
    store = memory_folder / "store"

    def delete() -> None:
        path = store / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    try:
        write_cache(work.request(store), report=after_first_shard(delete))
    except AlensError as error:
        assert "\n" not in str(error)
    try:
        shards = judge.assert_right(store)
    except AlensError as error:
        assert str(store) in str(error)
    else:
        assert shards is None or part != "arrays.zarr"


@needs_root
def test_a_disk_that_is_taken_away_while_it_is_written(work: Any, judge: Any, disk: Path) -> None:
    store = disk / "store"
    with pytest.raises(AlensError) as caught:
        write_cache(
            work.request(store),
            report=after_first_shard(lambda: subprocess.run(["umount", "-l", str(disk)], check=True)),
        )
    assert str(store) in str(caught.value) and "\n" not in str(caught.value)
    assert judge.assert_right(store) is None
    assert not list(disk.rglob("c.0*"))


@needs_root
@pytest.mark.parametrize("how", ["deleted", "unmounted", "unmounted from STORE itself"])
def test_a_store_that_went_away_is_noticed_soon(work: Any, disk: Path, how: str) -> None:
    """Else the shards of hours to come are computed for nothing, and fill the disk below a mount that is gone."""
    store, many = disk if how.endswith("itself") else disk / "store", 16
    settings = dataclasses.replace(work.settings, max_rows=many * work.settings.rows_per_shard)
    seen: list[Progress] = []

    def take_away() -> None:
        if how != "deleted":
            subprocess.run(["umount", "-l", str(disk)], check=True)
        while store.is_dir() and how == "deleted":  # again, where a file was written meanwhile
            shutil.rmtree(store, ignore_errors=True)

    vanish = after_first_shard(take_away)

    def watch(progress: Progress) -> None:
        seen.append(progress)
        vanish(progress)

    with pytest.raises(AlensError):
        write_cache(dataclasses.replace(work.request(store), settings=settings), report=watch)
    assert seen[-1].done <= 5 * work.settings.rows_per_shard


def deleted_at(work: Any, judge: Any, store: Path, moment_s: float) -> str:
    """Deletes STORE from a thread while it is written; the run ends with one error, or was done before."""

    def delete() -> None:
        time.sleep(moment_s)
        shutil.rmtree(store, ignore_errors=True)

    thread, outcome = threading.Thread(target=delete), "done before"
    thread.start()
    try:
        write_cache(work.request(store))
    except AlensError as error:
        outcome = "an error"
        assert str(store) in str(error) and "\n" not in str(error)
    finally:
        thread.join()
    try:
        write_cache(work.request(store))
    except (
        AlensError
    ) as error:  # files went that no run writes anew: it says so, and the remains are to be deleted
        assert str(store) in str(error) and "\n" not in str(error)
        shutil.rmtree(store)
        write_cache(work.request(store))
    judge.assert_whole(store)
    shutil.rmtree(store)
    return outcome


def test_a_store_that_others_delete_at_some_moments(work: Any, judge: Any, memory_folder: Path) -> None:
    for moment_s in (0.1, 0.25, 0.32):
        deleted_at(work, judge, memory_folder / "store", moment_s)


@pytest.mark.slow
def test_a_store_that_others_delete_at_many_moments(work: Any, judge: Any, memory_folder: Path) -> None:
    draw = random.Random(3)
    outcomes = [deleted_at(work, judge, memory_folder / "store", draw.uniform(0.15, 0.45)) for _ in range(15)]
    print("\ndeleted at 15 moments:", {outcome: outcomes.count(outcome) for outcome in set(outcomes)})
