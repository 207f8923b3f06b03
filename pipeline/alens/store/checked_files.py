"""Remembers which files of `arrays.zarr` this process has compared with the hashes in their records.

In: a file's key and what its record says of it. Out: nothing, or a `DamageError` that names the file. A file is read
and hashed once; after that its inode, size and times tell whether it is still the same file, so a file that was replaced
meanwhile is hashed again.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alens.errors import DamageError
from alens.store import durable
from alens.store.paths import ARRAYS
from alens.store.stage import Stage

Seen = tuple[int, int, int, int, int]


class CheckedFiles:
    """The files of one store. Threads may share one."""

    def __init__(self, folder: Path, stage: Stage | None = None) -> None:
        """`stage` copies what is not in `folder` yet."""
        self._folder, self._stage = folder, stage
        self._seen: dict[str, Seen] = {}

    def check(self, key: str, recorded: Mapping[str, Any] | None, mend: str, *, whole: bool) -> None:
        """Compare a file with its record: its size, and with `whole` its SHA-256.

        A file whose hash was compared before is compared again when it is another file now. Raises `DamageError`.
        """
        path = self._folder / key
        fetched = (
            self._stage is not None and recorded is not None and self._stage.have(f"{ARRAYS}/{key}", recorded)
        )
        seen = _look(path)
        if recorded is None or seen is None or seen[2] != recorded["bytes"]:
            state = "is missing" if seen is None else f"has {seen[2]:,} bytes, not those that were committed"
            raise DamageError(f"{path} {state}: {mend}")
        if fetched:
            self._seen[key] = seen
        known = self._seen.get(key)
        if known == seen or not (whole or known):
            return
        try:
            same = durable.sha256_of(path) == recorded["sha256"]
        except OSError as error:
            raise DamageError(f"{path} cannot be read ({error.strerror}): {mend}") from None
        if not same and self._stage is not None:
            self._stage.drop(f"{ARRAYS}/{key}")  # the copy was damaged on this machine
            self._stage.have(f"{ARRAYS}/{key}", recorded)
            seen = _look(path) or seen
        elif not same:
            raise DamageError(
                f"{path} is not the file that was committed: its SHA-256 is another, so it was altered or exchanged; {mend}"
            )
        self._seen[key] = seen

    @contextlib.contextmanager
    def reading(self, key: str, recorded: Mapping[str, Any] | None) -> Iterator[None]:
        """The file is not dropped inside the block, where it is a copy."""
        if self._stage is None or recorded is None:
            yield
            return
        with self._stage.using(f"{ARRAYS}/{key}", recorded):
            yield

    def have(self, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Copy those files that are not here yet, several at a time."""
        if self._stage is not None:
            self._stage.have_all({f"{ARRAYS}/{key}": recorded for key, recorded in files.items()})


def _look(path: Path) -> Seen | None:
    """Inode, size and times, which change when another file takes its place; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
