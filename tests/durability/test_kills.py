"""kill -9 at random moments, three workers on one store, again and again until the cache is sealed.

Between kills everything that a reader calls committed is compared with a cache that was written undisturbed. Workers are
forked from a process that has imported everything, so that kills fall into the work and not into imports.
"""

import collections
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WORKERS = 3
SEED = 20
AFTER = "after its end"


class Kills:
    """One store that three workers write and that loses them, one by one."""

    def __init__(
        self, work: Any, judge: Any, parent: Any, folder: Path, shares_of_pace: Iterator[float], pace_s: float
    ) -> None:
        self.work, self.judge, self.parent, self.folder = work, judge, parent, folder
        self.shares_of_pace, self.pace_s = shares_of_pace, pace_s
        self.store = folder / "store"
        self.shares = [f"{index}/{WORKERS}" for index in range(WORKERS)]
        self.fell: collections.Counter[str] = collections.Counter()
        self.rounds = 0
        self._partial: set[Path] = set()

    def start(self) -> list[int]:
        self.rounds += 1
        return [
            self.parent.start(self.work.arguments(self.store, "--worker", share), self.log(index))
            for index, share in enumerate(self.shares)
        ]

    def log(self, index: int) -> Path:
        return self.folder / f"{self.rounds}-{index}.log"

    def killed(self) -> None:
        """One round: every worker is killed at a moment of its own, unless it was done by then."""
        began = time.monotonic()
        # Later from round to round: on a machine that became slow no worker would get as far as a commit.
        most_s = self.pace_s * (0.5 + 0.02 * self.rounds)
        moments = [(next(self.shares_of_pace) * most_s, pid, index) for index, pid in enumerate(self.start())]
        for moment, pid, index in sorted(moments):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so that the number is still its own
            code = self.parent.wait(pid)
            assert code in (0, -signal.SIGKILL), (code, self.log(index).read_text())
            self.fell[self.where() if code else AFTER] += 1

    def where(self) -> str:
        """What the store looks like right after a kill; the other workers go on, so that it is a guess."""
        partial, before = set(self.store.rglob("*.partial")), self._partial
        self._partial = partial
        in_a_file = ", in a file" if partial - before else ""
        if not (self.store / "plan.json").exists():
            return f"before the plan{in_a_file}"
        files = (self.store / "arrays.zarr").glob("rows/*/c.*")
        begun = {int(path.name.split(".")[1]) for path in files}
        committed = {int(path.stem) for path in (self.store / "commits").glob("[0-9]*.json")}
        return (
            f"while a shard was written{in_a_file}"
            if begun - committed or in_a_file
            else "between two shards"
        )

    def finished(self) -> None:
        """No more kills: all workers end well, and the cache is whole."""
        codes = [self.parent.wait(pid) for pid in self.start()]
        if codes != [0] * WORKERS:
            raise AssertionError([self.log(index).read_text() for index in range(WORKERS)])
        if not (self.store / "MANIFEST.json").exists():  # each thought that another would seal it
            assert self.parent.wait(self.parent.start(self.work.arguments(self.store), self.log(0))) == 0
        self.judge.assert_whole(self.store)


@pytest.fixture
def store_under_fire(
    longer: Any, longer_judge: Any, warm_parent: Any, pace_s: float, memory_folder: Path
) -> Callable[[], Kills]:
    draw = random.Random(SEED)
    shares_of_pace = iter(draw.random, None)

    def make() -> Kills:
        folder = memory_folder / str(len(list(memory_folder.iterdir())))
        folder.mkdir()
        return Kills(longer, longer_judge, warm_parent, folder, shares_of_pace, pace_s)

    return make


def many_kills(
    make: Callable[[], Kills], at_least: int, shares: list[str] | None = None, moments: tuple[str, ...] = ()
) -> None:
    """Kills until so many fell into the work, some at each of these moments, on as many stores as that takes."""
    fell: collections.Counter[str] = collections.Counter()
    stores = 0

    def enough(more: collections.Counter[str]) -> bool:
        all_moments = fell + more
        hit = all(any(moment in where for where in all_moments) for moment in moments)
        return hit and sum(count for where, count in all_moments.items() if where != AFTER) >= at_least

    while not enough(collections.Counter()):
        fire, stores = make(), stores + 1
        fire.shares = shares or fire.shares
        while not (fire.store / "MANIFEST.json").exists() and not enough(fire.fell):
            fire.killed()
            fire.judge.assert_right(fire.store)
        fire.finished()
        shutil.rmtree(fire.store)
        fell += fire.fell
    print(f"\n{sum(fell.values())} kills of {WORKERS} workers on {stores} stores:", dict(fell))


def test_a_few_kills(store_under_fire: Callable[[], Kills]) -> None:
    many_kills(store_under_fire, 6)


@pytest.mark.slow
def test_many_kills(store_under_fire: Callable[[], Kills]) -> None:
    many_kills(store_under_fire, 45, moments=("before the plan", "while a shard"))


@pytest.mark.slow
def test_many_kills_of_workers_with_the_same_share(store_under_fire: Callable[[], Kills]) -> None:
    """A worker that starts on a shard may not take from under another what that one commits at the same moment."""
    many_kills(store_under_fire, 30, ["0/1"] * WORKERS)
