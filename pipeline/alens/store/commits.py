"""The commit records of a cache, the record of its skeleton, and its manifest: they say what is committed.

In: the paths of a cache and its plan's identity. Out: records, as they were written. A record that
cannot be read, was altered or belongs to another plan counts as absent. So does a record with an impossible field; the
log then names the field. The work grows with the number of records on disk, not with the number that the plan expects,
and memory with neither: of a record that was read its hash is kept, and of the last ones all they hold.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError
from alens.store import document, typed
from alens.store.paths import COMMITS, StorePaths
from alens.store.records import FilesRecord, Manifest, ShardRecord
from alens.store.schema import Plan
from alens.store.stage import Stage

log = logging.getLogger("alens")

Record = dict[str, Any]

KEPT = 1024
"""Records that are kept as they were read. One of 30 layers takes 50 KB of memory, and a cache may have a million."""

_NAME = re.compile(r"\d{6,}\.json", re.ASCII)
SHORTEST = len("000000.json")
"""A longer name of a record does not begin with 0."""


class Commits:
    """The records of one cache. Reads a record when it is asked for, and remembers it."""

    def __init__(self, paths: StorePaths, plan: Plan, stage: Stage | None = None) -> None:
        """`stage` copies the records of a cache that is elsewhere; without one they are in `paths`."""
        self.paths, self.plan, self._stage = paths, plan, stage
        self._identity = plan.identity
        self._records: OrderedDict[int, Record] = OrderedDict()
        """The records that were asked for last, oldest first."""
        self._used: dict[int, bytes] = {}
        """The hash of the files that each record named when it was read."""
        self._lock = threading.Lock()
        self._told: set[int] = set()
        """Shards whose damaged record the log has already named."""

    def record(self, shard: int) -> Record:
        """The commit record of a shard. Raises `DamageError` when there is none that can be read."""
        with self._lock:
            if (known := self._records.get(shard)) is not None:
                self._records.move_to_end(shard)
                return known
        record = self._read_record(shard)
        with self._lock:
            self._records[shard] = record
            self._used.setdefault(shard, _hash_of(record))
            while len(self._records) > KEPT:
                self._records.popitem(last=False)
        return record

    def _read_record(self, shard: int) -> Record:
        path = self.paths.record(shard)
        self.have([shard])
        record = self.read(path)
        what = None if record is None else typed.wrong(ShardRecord, record)
        if record is None or what is not None or record["shard"] != shard:
            why = "" if what is None else f" ({path} is not whole: {what})"
            if why and shard not in self._told:
                log.warning("%s is not whole (%s): its shard counts as not committed", path, what)
                self._told.add(shard)
            raise DamageError(
                f"shard {shard} of {self.where} is not committed{why}: run `alens cache` again to write it"
            )
        return record

    @property
    def where(self) -> Path | str:
        """The cache, for messages."""
        return self.paths.root if self._stage is None else self._stage.where

    def have(self, shards: Iterable[int]) -> None:
        """Have the records of these shards on this machine, those of a cache that is elsewhere several at a time.

        Where a cache is sealed, a copy of a record is as good as the record; else it may have been written anew.
        """
        if self._stage is None:
            return
        paths = [self.paths.record(shard) for shard in shards if shard not in self._records]
        if self.fingerprint() is not None:
            paths = [path for path in paths if not path.exists()]
        self._stage.documents([path.relative_to(self.paths.root).as_posix() for path in paths])

    def unchanged(self) -> bool:
        """Whether the records that were read still name the same files on disk."""
        return self._stage is not None or all(
            (now := self.read(self.paths.record(shard))) is not None and _hash_of(now) == files
            for shard, files in list(self._used.items())
        )

    def committed(self, among: Sequence[int] | None = None) -> tuple[int, ...]:
        """The shards with a whole record of this plan, ascending; only those `among` some, whose records alone are read.

        A record that is still remembered is not read again.
        """
        shards = self.named() if among is None else among
        if among is None:
            self._forget({*self._used} - {*shards})
        self.have(shards)
        return tuple(shard for shard in shards if self._is_whole(shard))

    def _forget(self, gone: Iterable[int]) -> None:
        with self._lock:
            for shard in gone:
                self._records.pop(shard, None)
                self._used.pop(shard, None)

    def files(self) -> "CommittedFiles":
        """Size and hash of every file of the shards that have a record; asking for those of one that is not whole raises
        `DamageError`. They are read when they are asked for, and not kept."""
        return CommittedFiles(self, self.named())

    def named(self) -> tuple[int, ...]:
        """The shards of the plan that have a file where their record belongs, ascending. No file is opened."""
        if self._stage is not None and self.fingerprint() is not None:
            return tuple(
                range(self.plan.num_shards)
            )  # nothing is listed: a record that is missing is named when read
        shards = numbered(self.paths) if self._stage is None else self._listed(self._stage)
        return tuple(shard for shard in shards if shard < self.plan.num_shards)

    def _listed(self, stage: Stage) -> list[int]:
        """Raises `RequestError` where they cannot be listed."""
        names = stage.names(COMMITS)
        if names is None:
            raise RequestError(
                f"{stage.where} is not sealed, and what it holds cannot be listed: finish it with `alens cache`, or read it "
                "at s3:// or in its directory"
            )
        return numbers_of(name.removeprefix(f"{COMMITS}/") for name in names)

    def _is_whole(self, shard: int) -> bool:
        try:
            self.record(shard)
        except DamageError:
            return False
        return True

    def skeleton(self) -> Record | None:
        """`commits/model.json`: sizes and hashes of all files of `arrays.zarr` that are not part of a shard."""
        record = self.read(self.paths.skeleton)
        return record if record is not None and typed.wrong(FilesRecord, record) is None else None

    def fingerprint(self) -> str | None:
        """The hash of all shard files of a sealed cache, from its manifest. None: the cache is not sealed."""
        manifest = self.read(self.paths.manifest)
        if manifest is None or typed.wrong(Manifest, manifest) or manifest["shards"] != self.plan.num_shards:
            return None
        return str(manifest["fingerprint"])

    def read(self, path: Path) -> Record | None:
        """A document of this plan; None when it is absent, damaged, or of another plan."""
        try:
            record = document.decode(document.content(path), str(path))
        except (OSError, DamageError):
            return None
        return record if record.get("plan") == self._identity else None


class CommittedFiles(Mapping[int, Mapping[str, Any]]):
    """The files of some shards by their records, one record in memory at a time."""

    def __init__(self, commits: Commits, shards: Sequence[int]) -> None:
        self._commits, self._shards = commits, shards

    def __getitem__(self, shard: int) -> Mapping[str, Any]:
        files: Mapping[str, Any] = self._commits.record(shard)["files"]
        return files

    def __iter__(self) -> Iterator[int]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


def _hash_of(record: Record) -> bytes:
    """A hash of what a record says of its files."""
    return hashlib.sha256(json.dumps(record.get("files"), sort_keys=True).encode()).digest()


def numbered(paths: StorePaths) -> list[int]:
    """The numbers of all files whose name is that of a record, ascending."""
    try:
        names = os.listdir(paths.commits)  # noqa: PTH208  # a Path for each of 200,000 names takes half a second
    except OSError:
        return []
    return numbers_of(names)


def numbers_of(names: Iterable[str]) -> list[int]:
    """The numbers of those names that are names of records, ascending."""
    return sorted(
        int(name.removesuffix(".json"))
        for name in names
        if _NAME.fullmatch(name) and (name[0] != "0" or len(name) == SHORTEST)
    )


def fingerprint(files_by_shard: Mapping[int, Mapping[str, Any]]) -> str:
    """SHA-256 over the hashes of all shard files: two caches with the same one hold the same bytes."""
    digest = hashlib.sha256()
    for shard in sorted(files_by_shard):
        for key, file in sorted(files_by_shard[shard].items()):
            digest.update(f"{key} {file['sha256']}\n".encode())
    return digest.hexdigest()
