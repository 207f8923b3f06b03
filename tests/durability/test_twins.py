"""Two jobs that were given the same share by a mistake in a job script: both end well, and the cache is whole.

Neither may take from under the other what that one is about to commit, even if it dies in the middle.
"""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from alens import AlensError, write_cache

WAIT_S = 5
"""A job that waits for the other may do so."""


def twins(work: Any, judge: Any, parent: Any, folder: Path, rounds: int) -> None:
    """Both were told to write everything, by a mistake in a job script: both end well, and the cache is whole."""
    for index in range(rounds):
        store = folder / f"store-{index}"
        if index % 2:  # half written: its plan and some shards, one of them without its record
            shutil.copytree(judge.undisturbed, store)
            (store / "MANIFEST.json").unlink()
            for shard in range(2, len(judge.records), 2):
                (store / f"commits/{shard:06d}.json").unlink()
        logs = [folder / f"{index}-{job}.log" for job in range(2)]
        pids = [parent.start(work.arguments(store, "--worker", "0/1"), log) for log in logs]
        codes = [parent.wait(pid) for pid in pids]
        assert codes == [0, 0], (index, codes, [log.read_text() for log in logs])
        judge.assert_whole(store)
        shutil.rmtree(store)


def test_two_jobs_with_the_same_share(
    longer: Any, longer_judge: Any, warm_parent: Any, memory_folder: Path
) -> None:
    twins(longer, longer_judge, warm_parent, memory_folder, 4)


@pytest.mark.slow
def test_two_jobs_with_the_same_share_again_and_again(
    longer: Any, longer_judge: Any, warm_parent: Any, memory_folder: Path
) -> None:
    twins(longer, longer_judge, warm_parent, memory_folder, 12)


def test_a_twin_that_dies_takes_nothing_from_what_the_other_commits(
    work: Any, judge: Any, warm_parent: Any, memory_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: one job is about to put the record of a shard when the other begins that shard, and is killed."""
    store, replace = memory_folder / "store", os.replace
    twins: list[int] = []

    def begin_and_die() -> None:
        files = list((store / "arrays.zarr/rows").glob("*/c.0"))
        assert files
        twins.append(warm_parent.start(work.arguments(store), memory_folder / "log"))
        limit = time.monotonic() + WAIT_S
        while all(file.exists() for file in files) and time.monotonic() < limit:
            time.sleep(0.0001)
        os.kill(twins[0], signal.SIGKILL)
        warm_parent.wait(twins[0])

    def call(source: Any, target: Any, **options: Any) -> None:
        if not twins and os.fspath(target).endswith("/commits/000000.json"):
            begin_and_die()
        replace(source, target, **options)

    monkeypatch.setattr(os, "replace", call)
    with contextlib.suppress(AlensError):
        write_cache(work.request(store))
    monkeypatch.undo()
    assert twins
    judge.assert_right(store)
    write_cache(work.request(store))
    judge.assert_whole(store)
