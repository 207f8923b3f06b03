"""How fast a disk is and what it has free: rates of writing and reading, bytes, inodes.

In: a directory that exists. Out: `DiskRates` and the numbers of `DiskSpace`. The probe writes a file without a
name: it never shows in the directory, and it goes when it is closed or the process dies.
"""

import contextlib
import hashlib
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alens.errors import RunError
from alens.store.durable import READ_BYTES, sync_folder, write_errors

MOST_BYTES = 256 * 2**20
PIECE_BYTES = 32 * 2**20
"""Bytes written between two syncs: about one file of a shard."""

LEAST_BYTES = 2**20
SHARE_OF_FREE = 8
"""The probe writes at most the free bytes divided by this."""

SYNCS = 5


@dataclass(frozen=True, kw_only=True)
class DiskRates:
    """Seconds a byte, and seconds a file."""

    probe_bytes: int
    """Bytes that the probe wrote and read."""
    write_s_a_byte: float
    """Written and synced."""
    read_s_a_byte: float
    """Read, after the system was asked to forget its copy in memory."""
    hash_s_a_byte: float
    """SHA-256."""
    sync_s: float
    """Seconds to sync a small file and its directory."""

    def commit_s(self, num_bytes: float, num_files: float) -> float:
        """Seconds to write as a shard is written: synced, read back, compared and hashed."""
        a_byte = self.write_s_a_byte + self.read_s_a_byte + self.hash_s_a_byte
        return num_bytes * a_byte + num_files * self.sync_s

    def save_s(self, num_bytes: float) -> float:
        """Seconds to write as a checkpoint is written: synced, and hashed from memory."""
        return num_bytes * (self.write_s_a_byte + self.hash_s_a_byte) + 2 * self.sync_s


@dataclass(frozen=True, kw_only=True)
class DiskSpace:
    """What the file system has free, and what is still to be written."""

    where: str
    """The directory whose file system was asked."""
    needed_bytes: int
    free_bytes: int
    needed_inodes: int
    free_inodes: int | None
    """None where the file system states no limit."""

    def shortfall(self) -> str | None:
        """`does not fit: needs X, free Y`, or None when it fits."""
        if self.needed_bytes > self.free_bytes:
            return (
                f"does not fit: needs {self.needed_bytes:,} bytes, free {self.free_bytes:,} in {self.where}"
            )
        if self.free_inodes is not None and self.needed_inodes > self.free_inodes:
            return f"does not fit: needs {self.needed_inodes:,} files and directories, free {self.free_inodes:,} in {self.where}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Its numbers, and whether the cache fits."""
        return {**asdict(self), "fits": self.shortfall() is None}


def nearest_folder(store: Path) -> Path:
    """The nearest existing directory above `store`, or `store` itself if it exists on another file system."""
    above = store.absolute().parent
    while not above.is_dir():
        above = above.parent
    return store if store.is_dir() and store.stat().st_dev != above.stat().st_dev else above


def free(folder: Path) -> tuple[int, int | None, int]:
    """Bytes and inodes that this user may still take, and the bytes of a block; inodes are None without a limit."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize, status.f_favail if status.f_files else None, status.f_frsize


def probe(folder: Path, probe_s: float) -> DiskRates:
    """Write and read for about `probe_s` seconds each.

    Raises `RunError` when `folder` cannot be written to, or has too little room for the probe.
    """
    limit = min(MOST_BYTES, free(folder)[0] // SHARE_OF_FREE)
    if limit < LEAST_BYTES:
        raise RunError(
            f"no room to try {folder}: {free(folder)[0]:,} bytes are free, {LEAST_BYTES * SHARE_OF_FREE:,} are needed; make room"
        )
    piece = os.urandom(min(PIECE_BYTES, limit))
    with write_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        written, since = 0, time.monotonic()
        while written + len(piece) <= limit and (not written or time.monotonic() - since < probe_s):
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())
            written += len(piece)
        write_s = time.monotonic() - since
        with contextlib.suppress(AttributeError):  # only Linux can be asked
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        read, since = 0, time.monotonic()
        while time.monotonic() - since < probe_s and (block := file.read(READ_BYTES)):
            read += len(block)
        read_s = time.monotonic() - since
        since = time.monotonic()
        hashlib.sha256(piece).digest()
        hash_s = time.monotonic() - since
        syncs = []
        for _ in range(SYNCS):
            since = time.monotonic()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            sync_folder(folder)
            syncs.append(time.monotonic() - since)
    return DiskRates(
        probe_bytes=written,
        write_s_a_byte=write_s / written,
        read_s_a_byte=read_s / max(read, 1),
        hash_s_a_byte=hash_s / len(piece),
        sync_s=sorted(syncs)[SYNCS // 2],
    )
