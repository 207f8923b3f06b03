"""The room that copies may take, and which of them are in use.

In: the directory of all stages, its bound. Out: locks, and room for another file. A copy that a process is reading is
locked by it (flock), so it is never dropped; the system releases the locks of a process that is killed. Where the file
system knows no locks, nothing is dropped.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from alens.errors import RunError

log = logging.getLogger("alens")

WHOLE = ".whole"
"""How the name of a marker ends: the file beside it was copied whole, and had the hash that the marker holds."""

STAYS = f"zarr.json{WHOLE}"
"""Metadata are small, and are read without a lock."""

LOCKS, NUM_LOCKS = "locks", 64

WAIT_S = 600.0
"""A file that another process copies is waited for so long. Then it is copied twice, which harms nothing."""

POLL_S = 0.02

LOOK_AGAIN = 16
"""After so many parts of the bound were copied, all copies are counted anew: other processes copy too."""


class StageSpace:
    """The directory that holds stages, of any number of caches. Threads may share it."""

    def __init__(self, place: Path, most_bytes: int | None) -> None:
        """`most_bytes` None: half of what would be free without the copies. Raises `RunError` where it cannot be made."""
        self.place, self._most_bytes = place, most_bytes
        self._left = 0
        """Bytes that may be copied before all copies are counted again."""
        with write_refusals(place):
            (place / LOCKS).mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def copying(self, name: str) -> Iterator[None]:
        """One process, and one thread of it, copies a file of this name at a time."""
        with write_refusals(self.place):
            path = self.place / LOCKS / f"{zlib.crc32(name.encode()) % NUM_LOCKS:02d}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + WAIT_S
            while not _locked(descriptor, fcntl.LOCK_EX) and time.monotonic() < until:
                time.sleep(POLL_S)
            yield
        finally:
            os.close(descriptor)

    def make_room(self, num_bytes: int) -> None:
        """Drop copies until another `num_bytes` fit: those that were read longest ago first, none that is in use."""
        if num_bytes <= self._left:
            self._left -= num_bytes
            return
        copies = sorted(self._copies())
        taken = sum(size for _, size, _ in copies)
        bound = self._bound(taken)
        for _, size, marker in copies:
            if taken + num_bytes <= bound:
                break
            if _drop(marker):
                taken -= size
        self._left = max(0, min(bound - taken, bound // LOOK_AGAIN) - num_bytes)

    def empty(self) -> None:
        """Drop all copies that are not in use: the disk is full."""
        for _, _, marker in sorted(self._copies()):
            _drop(marker)

    def _bound(self, taken: int) -> int:
        if self._most_bytes is not None:
            return self._most_bytes
        return (shutil.disk_usage(self.place).free + taken) // 2

    def _copies(self) -> Iterator[tuple[float, int, Path]]:
        """When each copy was read last, its bytes, its marker."""
        for folder, _, names in os.walk(self.place):
            for name in names:
                if name.endswith(WHOLE) and not name.endswith(STAYS):
                    marker = Path(folder, name)
                    with contextlib.suppress(OSError):  # another process has just dropped it
                        yield marker.stat().st_mtime, marker.with_suffix("").stat().st_size, marker


@contextlib.contextmanager
def in_use(marker: Path) -> Iterator[bool]:
    """Holds a copy while it is read; False where it was dropped a moment ago."""
    try:
        descriptor = os.open(marker, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        while not _locked(descriptor, fcntl.LOCK_SH):
            time.sleep(POLL_S)
        yield os.fstat(descriptor).st_nlink > 0
    finally:
        os.close(descriptor)


def _drop(marker: Path) -> bool:
    """Remove a copy, its marker first; False where a process reads it."""
    try:
        descriptor = os.open(marker, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        marker.unlink()
        marker.with_suffix("").unlink(missing_ok=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _locked(descriptor: int, kind: int) -> bool:
    """Whether the lock is held now. True also where the file system knows no locks: nothing is dropped there."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextlib.contextmanager
def write_refusals(where: Path) -> Iterator[None]:
    """Turns a refusal of the operating system to write a copy into `RunError`, one line."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        raise RunError(
            f"cannot keep a copy in {where}: {what}; name another directory with --stage, or make room, and run again"
        ) from error
