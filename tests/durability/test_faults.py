"""Every call that makes a file last fails once, or from then on: the error is one line, and the next run makes it whole.

The k-th sync, rename, link or unlink of a run raises an error of the disk, for every k (the quick suite tries a spread of
them). Between fault and restart a reader may refuse, but may not give a wrong number.
"""

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from alens import AlensError, write_cache

CALLS = {"fsync": ("fsync", "fdatasync"), "replace": ("replace", "rename"), "link": ("link",), "unlink": ("unlink", "remove")}  # fmt: skip
"""What is counted together, by its name in `os`; pathlib, tempfile and zarr come through these too."""

MAY_BE_BORNE = ("link", "unlink")
"""A file that cannot be cleared away need not stop the run, if the cache is whole at its end."""

QUICK_FAULTS, LASTING_FAULTS = 4, 8

ONCE, FOR_GOOD = 1, 10**9


class Disk:
    """Counts calls on files below `root`, from any thread; those numbered `first` to `first + number - 1` fail."""

    def __init__(self, root: Path, call: str, first: int, number: int) -> None:
        self.root, self.call, self.first, self.number = str(root), call, first, number
        self.count, self.failed = 0, 0
        self._lock = threading.Lock()

    def concerns(self, target: Any) -> bool:
        path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else target
        return str(path).startswith(self.root)

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            if self.concerns(target):
                with self._lock:
                    self.count += 1
                    fails = 0 <= self.count - self.first < self.number
                    self.failed += fails
                if fails:
                    raise OSError(
                        errno.EIO, os.strerror(errno.EIO), *([] if isinstance(target, int) else [str(target)])
                    )
            return original(target, *arguments, **options)

        return call


@contextmanager
def faulty(root: Path, call: str, first: int = FOR_GOOD, number: int = ONCE) -> Iterator[Disk]:
    disk = Disk(root, call, first, number)
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS[call]:
            patch.setattr(os, name, disk.wrap(getattr(os, name)))
        yield disk


@pytest.fixture(scope="module")
def counted(work: Any, judge: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often an undisturbed run makes each call."""
    counts = {}
    for call in CALLS:
        store = tmp_path_factory.mktemp("counted") / "store"
        with faulty(store, call) as disk:
            write_cache(work.request(store))
        judge.assert_whole(store)
        counts[call] = disk.count
    print("\ncalls of an undisturbed run:", counts)
    assert (
        counts["fsync"] > 50 and counts["replace"] > 25
    )  # else something goes past the calls that are counted
    return counts


def one_fault(work: Any, judge: Any, store: Path, call: str, k: int, number: int) -> str:
    """Lets the k-th call fail, looks at what is there, and runs again."""
    outcome = "raised"
    with faulty(store, call, k, number) as disk:
        try:
            write_cache(work.request(store))
            outcome = "borne" if disk.failed else "not reached"
        except AlensError as error:
            assert disk.failed and "\n" not in str(error)
            assert os.strerror(errno.EIO) in str(error) and str(store) in str(error)
    if outcome == "borne":
        assert call in MAY_BE_BORNE, (call, k)
        judge.assert_whole(store)
    judge.assert_right(store)
    write_cache(work.request(store))
    judge.assert_whole(store)
    shutil.rmtree(store)
    return outcome


def sweep(work: Any, judge: Any, folder: Path, call: str, ks: list[int], number: int) -> None:
    outcomes = [one_fault(work, judge, folder / f"{call}-{k}", call, k, number) for k in ks]
    tally = {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}
    print(f"\n{call}, {'for good' if number == FOR_GOOD else 'once'}: {len(ks)} faults, {tally}")
    # With threads the order of calls may vary, but only at the very end can a run be over before its k-th call.
    assert outcomes.count("not reached") <= max(1, len(ks) // 20)


def spread(count: int, number: int) -> list[int]:
    """`number` of 1 .. count, both ends among them."""
    return (
        sorted({1 + round(step * (count - 1) / max(1, number - 1)) for step in range(number)})
        if count
        else []
    )


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_once(
    work: Any, judge: Any, counted: dict[str, int], memory_folder: Path, call: str
) -> None:
    sweep(work, judge, memory_folder, call, spread(counted[call], QUICK_FAULTS), ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_each_call_that_fails_once(
    work: Any, judge: Any, counted: dict[str, int], memory_folder: Path, call: str
) -> None:
    sweep(work, judge, memory_folder, call, list(range(1, counted[call] + 1)), ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_from_some_moment_on(
    work: Any, judge: Any, counted: dict[str, int], memory_folder: Path, call: str
) -> None:
    sweep(work, judge, memory_folder, call, spread(counted[call], LASTING_FAULTS), FOR_GOOD)


def test_a_fault_on_the_command_line_is_one_line(
    work: Any, judge: Any, counted: dict[str, int], memory_folder: Path, run_alens: Any, one_line: Any
) -> None:
    for call in ("fsync", "replace"):
        store = memory_folder / call
        with faulty(store, call, counted[call] // 2):
            outcome = run_alens(*work.arguments(store))
        one_line(outcome, 1, str(store), os.strerror(errno.EIO), "run again")
        assert run_alens(*work.arguments(store)).code == 0
        judge.assert_whole(store)
