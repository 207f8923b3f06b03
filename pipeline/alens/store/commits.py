"""The commit records of a cache, the record of its skeleton, and its manifest: they say what is committed.

In: the paths of a cache and its plan's identity. Out: records, as they were written. A record that
cannot be read, was altered or belongs to another plan counts as absent. So does a record with an impossible field; the
log then names the field. The work grows with the number of records on disk, not with the number that the plan expects.
"""

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError
from alens.store import document, typed
from alens.store.paths import COMMITS, StorePaths, record_name
from alens.store.records import FilesRecord, Manifest, ShardRecord
from alens.store.schema import Plan
from alens.store.stage import Stage

log = logging.getLogger("alens")

Record = dict[str, Any]

_NAME = re.compile(r"\d{6,}\.json", re.ASCII)


class Commits:
    """The records of one cache. Reads a record when it is asked for, and remembers it."""

    def __init__(self, paths: StorePaths, plan: Plan, stage: Stage | None = None) -> None:
        """`stage` copies the records of a cache that is elsewhere; without one they are in `paths`."""
        self.paths, self.plan, self._stage = paths, plan, stage
        self._identity = plan.identity
        self._records: dict[int, Record] = {}
        self._told: set[int] = set()
        """Shards whose damaged record the log has already named."""

    def record(self, shard: int) -> Record:
        """The commit record of a shard. Raises `DamageError` when there is none that can be read."""
        if shard not in self._records:
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
            self._records[shard] = record
        return self._records[shard]

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
            (now := self.read(self.paths.record(shard))) is not None and now.get("files") == record["files"]
            for shard, record in self._records.items()
        )

    def committed(self) -> tuple[int, ...]:
        """The shards with a whole record of this plan, ascending. A record that was read is not read again."""
        shards = self.named()
        self._records = {shard: self._records[shard] for shard in shards if shard in self._records}
        self.have(shards)
        return tuple(shard for shard in shards if self._is_whole(shard))

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


def numbered(paths: StorePaths) -> list[int]:
    """The numbers of all files whose name is that of a record, ascending."""
    try:
        names = [path.name for path in paths.commits.iterdir()]
    except OSError:
        return []
    return numbers_of(names)


def numbers_of(names: Iterable[str]) -> list[int]:
    """The numbers of those names that are names of records, ascending."""
    shards = {int(name.removesuffix(".json")): name for name in names if _NAME.fullmatch(name)}
    return sorted(shard for shard, name in shards.items() if name == record_name(shard))


def fingerprint(files_by_shard: Mapping[int, Mapping[str, Any]]) -> str:
    """SHA-256 over the hashes of all shard files: two caches with the same one hold the same bytes."""
    digest = hashlib.sha256()
    for shard in sorted(files_by_shard):
        for key, file in sorted(files_by_shard[shard].items()):
            digest.update(f"{key} {file['sha256']}\n".encode())
    return digest.hexdigest()
