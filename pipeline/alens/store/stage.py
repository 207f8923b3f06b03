"""Copies of the files of a cache that is elsewhere, on a disk of this machine.

In: an address, or a directory that is slow to read, and where copies may be kept. Out: a `Stage`, whose `root` is a
directory laid out like the cache. Documents are copied when the cache is opened, other files when they are first read.
A file is copied beside its place, compared with its hash on the way, and renamed; then its marker is put, which holds that
hash. A file without a marker counts as absent, whatever it holds: a process was killed. Several processes may share a
stage.
"""

import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError
from alens.remote.address import address
from alens.remote.objects import Objects, Readable
from alens.store import document, durable, leftovers
from alens.store.directory_source import DirectorySource
from alens.store.paths import ARRAYS, MANIFEST, PLAN, SKELETON, no_cache
from alens.store.schema import Plan
from alens.store.stage_settings import StageSettings, usual_place
from alens.store.stage_space import WHOLE, StageSpace, in_use, write_refusals

log = logging.getLogger("alens")

Recorded = Mapping[str, Any]
"""`sha256`, and `bytes` where it is known."""

AT_ONCE, SMALL_AT_ONCE = 4, 16
"""Files that are copied at the same time; small ones wait for the network alone."""

TRIES = 2
"""A file whose hash is another is read again: a bit may have changed on the way."""

TOUCH_S = 1.0
"""A copy that was read so recently is not marked as read again."""


class Stage:
    """Copies of one cache's files. Threads may share it.

    Attributes: `root` (the directory with the copies), `where` (the cache itself, for messages) and `source`.
    """

    def __init__(self, source: Readable, where: Path | str, root: Path, space: StageSpace) -> None:
        self.source, self.where, self.root, self.space = source, where, root, space

    def have(self, path: str, recorded: Recorded) -> bool:
        """Have a copy of a file that has these bytes and this SHA-256. True where it was copied, and compared, just now.

        Raises `DamageError` where the cache holds another file, `RunError` where network or disk fail.
        """
        if self._is_whole(path, recorded):
            return False
        with self.space.copying(f"{self.root.name}/{path}"):
            if self._is_whole(path, recorded):  # another process was quicker
                return False
            self._copy(path, recorded)
        return True

    def have_sound(self, path: str, recorded: Recorded) -> None:
        """As `have`; a copy that was made before is compared with its hash again, and made anew where it differs."""
        if not self.have(path, recorded) and durable.sha256_of(self.root / path) != recorded["sha256"]:
            self.drop(path)
            self.have(path, recorded)

    def have_all(self, files: Mapping[str, Recorded], at_once: int = AT_ONCE) -> None:
        """As `have`, several at a time."""
        lacking = [path for path, recorded in files.items() if not self._is_whole(path, recorded)]
        _side_by_side(lambda path: self.have(path, files[path]), lacking, at_once)

    @contextlib.contextmanager
    def using(self, path: str, recorded: Recorded) -> Iterator[None]:
        """As `have`; the copy is not dropped inside the block."""
        while True:
            self.have(path, recorded)
            with in_use(self._marker(path)) as there:
                if there:
                    yield
                    return

    def drop(self, path: str) -> None:
        """Forget a copy that is damaged."""
        with write_refusals(self.root):
            self._marker(path).unlink(missing_ok=True)

    def document(self, path: str) -> None:
        """Have the document that the cache holds now, or none where it holds none."""
        try:
            content = self.source.read(path)
        except (FileNotFoundError, NotADirectoryError):
            with write_refusals(self.root):
                (self.root / path).unlink(missing_ok=True)
            return
        self._put_document(path, content)

    def documents(self, paths: Sequence[str]) -> None:
        """As `document`, several at a time."""
        _side_by_side(self.document, paths, SMALL_AT_ONCE)

    def names(self, folder: str) -> list[str] | None:
        """The files in a folder of the cache; None where they cannot be listed."""
        listed = self.source.names(folder)
        return None if listed is None else [name for name, _ in listed]

    def _put_document(self, path: str, content: bytes) -> None:
        file = self.root / path
        with contextlib.suppress(OSError):
            if file.read_bytes() == content:
                return
        self._write(lambda: durable.put(file, content))

    def _write(self, write: Callable[[], object]) -> None:
        """Write something; where the disk is full, once more after copies that are not in use have gone."""
        with write_refusals(self.space.place):
            try:
                write()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                self.space.empty()
                write()

    def _marker(self, path: str) -> Path:
        return self.root / f"{path}{WHOLE}"

    def _is_whole(self, path: str, recorded: Recorded) -> bool:
        marker = self._marker(path)
        try:
            size = (self.root / path).stat().st_size
            if marker.read_text() != _mark(recorded) or size != recorded.get("bytes", size):
                return False
            if time.time() - marker.stat().st_mtime > TOUCH_S:
                os.utime(marker)
        except (OSError, ValueError):
            return False
        return True

    def _copy(self, path: str, recorded: Recorded) -> None:
        file, marker, url = self.root / path, self._marker(path), self.source.url(path)
        size = recorded.get("bytes")
        if size is None and (size := self.source.size(path)) is None:
            raise DamageError(f"{url} is missing: {self._mend}")
        self.space.make_room(size)
        with write_refusals(self.space.place):
            file.parent.mkdir(parents=True, exist_ok=True)
            leftovers.clear(file)
            marker.unlink(missing_ok=True)
        for again in (*[False] * (TRIES - 1), True):
            try:
                self._put(path, size, recorded)
                break
            except _OtherFileError:
                if again:
                    raise DamageError(
                        f"{url} is not the file that was committed: its SHA-256 is another, so it was altered there or on "
                        f"the way; {self._mend}"
                    ) from None
        self._write(lambda: durable.put_stream(marker, [_mark(recorded).encode()], sync_name=False))

    def _put(self, path: str, size: int, recorded: Recorded) -> None:
        """Write the copy. Raises `_OtherFileError`."""
        self._write(
            lambda: durable.put_stream(self.root / path, self._checked(path, size, recorded), sync_name=False)
        )

    def _checked(self, path: str, size: int, recorded: Recorded) -> Iterator[Any]:
        """The blocks of a file. Raises `_OtherFileError` at the end where they are not the right ones."""
        digest, done = hashlib.sha256(), 0
        try:
            for block in self.source.blocks(path, size):
                digest.update(block)
                done += len(block)
                yield block
        except FileNotFoundError:
            raise DamageError(f"{self.source.url(path)} is missing: {self._mend}") from None
        if done != size or digest.hexdigest() != recorded["sha256"]:
            raise _OtherFileError

    @property
    def _mend(self) -> str:
        return f"`alens verify {self.where}` names all that is damaged; copy it there again"


class _OtherFileError(Exception):
    """What was copied has another hash than its record says."""


def open_stage(store: Path | str, settings: StageSettings) -> Stage | None:
    """The stage of the cache at `store`; None for a directory where no stage is asked for.

    Reads plan, manifest and the record of metadata, and copies the metadata of all arrays. Raises `RequestError` where
    there is no cache, `DamageError` where its plan is damaged, `RunError` where the network fails.
    """
    remote = address(store)
    if remote is None and settings.stage is None:
        return None
    where: Path | str = Path(store) if remote is None else str(remote)
    source: Readable = DirectorySource(Path(store)) if remote is None else Objects(remote)
    try:
        content = source.read(PLAN)
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(no_cache(where)) from None
    except OSError as error:
        raise RequestError(f"cannot read {source.url(PLAN)}: {error.strerror}") from None
    identity = Plan.from_json(content, source.url(PLAN)).identity
    manifest = b""
    with contextlib.suppress(FileNotFoundError):
        manifest = source.read(MANIFEST)
    # A cache that was made anew at the same place has another directory: its records are other ones.
    digest = hashlib.sha256(f"{_absolute(where)}\n{identity}\n".encode() + manifest).hexdigest()
    place = settings.stage or usual_place()
    space = StageSpace(place, settings.most_bytes)
    name = Path(store).resolve().name if remote is None else remote.name
    stage = Stage(source, where, place / f"{name}-{digest[:16]}", space)
    for path in (PLAN, MANIFEST, SKELETON):
        stage.document(path)
    stage.have_all(_metadata(stage), SMALL_AT_ONCE)
    return stage


def _metadata(stage: Stage) -> dict[str, Recorded]:
    """The metadata of all arrays, by path. Empty where their record is damaged: reading arrays says so."""
    with contextlib.suppress(OSError, DamageError, KeyError, TypeError, AttributeError):
        path = stage.root / SKELETON
        files = document.decode(document.content(path), stage.source.url(SKELETON))["files"]
        return {f"{ARRAYS}/{key}": file for key, file in files.items() if key.endswith("zarr.json")}
    return {}


def _absolute(where: Path | str) -> Path | str:
    return where.resolve() if isinstance(where, Path) else where


def _mark(recorded: Recorded) -> str:
    return f"{recorded['sha256']}\n"


def _side_by_side(work: Callable[[str], object], paths: Sequence[str], at_once: int) -> None:
    if len(paths) < 2:
        for path in paths:
            work(path)
        return
    with ThreadPoolExecutor(min(at_once, len(paths)), thread_name_prefix="alens-stage") as pool:
        waiting = [pool.submit(work, path) for path in paths]
        try:
            for each in waiting:
                each.result()
        finally:
            pool.shutdown(cancel_futures=True)
