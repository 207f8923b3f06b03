"""Remembers which files of `arrays.zarr` this process has compared with the hashes in their records.

In: a file's key and what its record says of it. Out: nothing, or a `DamageError` that names the file. A file is read
and hashed once; after that its inode, size and times tell whether it is still the same file, so a file that was replaced
meanwhile is hashed again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alens.errors import DamageError
from alens.store import durable

Seen = tuple[int, int, int, int, int]


class CheckedFiles:
    """The files of one store. Threads may share one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, Seen] = {}

    def check(self, key: str, recorded: Mapping[str, Any] | None, mend: str, *, whole: bool) -> None:
        """Compare a file with its record: its size, and with `whole` its SHA-256.

        A file whose hash was compared before is compared again when it is another file now. Raises `DamageError`.
        """
        path = self._folder / key
        seen = _look(path)
        if recorded is None or seen is None or seen[2] != recorded["bytes"]:
            state = "is missing" if seen is None else f"has {seen[2]:,} bytes, not those that were committed"
            raise DamageError(f"{path} {state}: {mend}")
        known = self._seen.get(key)
        if known == seen or not (whole or known):
            return
        try:
            same = durable.sha256_of(path) == recorded["sha256"]
        except OSError as error:
            raise DamageError(f"{path} cannot be read ({error.strerror}): {mend}") from None
        if not same:
            raise DamageError(
                f"{path} is not the file that was committed: its SHA-256 is another, so it was altered or exchanged; {mend}"
            )
        self._seen[key] = seen


def _look(path: Path) -> Seen | None:
    """Inode, size and times, which change when another file takes its place; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
