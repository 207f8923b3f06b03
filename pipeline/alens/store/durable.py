"""Writes a file whole or not at all: beside its place, synced, then renamed, and the folder synced.

In: bytes. Out: a file that survives a power cut from the moment the call returns.
"""

import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from alens.errors import DamageError, RunError

PARTIAL = ".partial"
"""How the name of an unfinished file ends. Such a file is never read, and may be deleted."""

READ_BYTES = 8 * 2**20


def put(path: Path, *parts: bytes | memoryview, make_folder: bool = True) -> None:
    """Write `parts` to `path`, durably and atomically: readers see the old file or the new one.

    Without `make_folder` the folder must exist: a store that was moved or deleted is not begun anew in its old place.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    put_stream(path, parts)


def put_stream(path: Path, parts: Iterable[bytes | memoryview], *, sync_name: bool = True) -> None:
    """As `put`, for bytes that are made while they are written. The folder must exist.

    Without `sync_name` a power cut may take the file away again; what is there is whole all the same.
    """
    partial = partial_of(path)
    try:
        with partial.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    if sync_name:
        sync_folder(path.parent)


def partial_of(path: Path) -> Path:
    """Where `path` is written first: a unique name beside it, which says which process writes it."""
    unique = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{unique}{PARTIAL}")


@contextlib.contextmanager
def write_errors(where: Path) -> Iterator[None]:
    """Turns a refusal of the operating system to write into `RunError`, one line."""
    try:
        yield
    except OSError as error:
        what = error.strerror or str(error)
        raise RunError(
            f"cannot write {error.filename or where}: {what}; nothing that was committed is lost, mend it and run again"
        ) from error


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Unlink `path` durably, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        sync_folder(path.parent)


def sha256_of(path: Path, *, from_disk: bool = False) -> str:
    """The SHA-256 of a file in hexadecimal. With `from_disk` the kernel is asked to forget its copy in memory first."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if from_disk:
            _forget(file.fileno())
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def check_on_disk(path: Path, content: memoryview) -> None:
    """Raises `DamageError` when the file does not read back as `content`. The kernel is asked to forget its copy
    first, so that the disk is read."""
    at = 0
    with path.open("rb") as file:
        _forget(file.fileno())
        while block := file.read(READ_BYTES):
            if content[at : at + len(block)] != block:
                break
            at += len(block)
    if at != content.nbytes:
        raise DamageError(f"{path} reads back other bytes than were written: check the file system")


def _forget(descriptor: int) -> None:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
