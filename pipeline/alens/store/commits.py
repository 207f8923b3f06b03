"""What is there of a cache: its commit records, the record of its skeleton, its manifest.

In: the paths of a cache and its plan's identity. Out: records, as they were written; one that cannot be
read, was altered or belongs to another plan is an absent one.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alens.errors import DamageError
from alens.store import document
from alens.store.findings import files_of
from alens.store.paths import StorePaths
from alens.store.schema import Plan

Record = dict[str, Any]


class Commits:
    """The records of one cache. Reads a record when it is asked for, and remembers it."""

    def __init__(self, paths: StorePaths, plan: Plan) -> None:
        self.paths, self.plan = paths, plan
        self._identity = plan.identity
        self._records: dict[int, Record] = {}

    def record(self, shard: int) -> Record:
        """The commit record of a shard. Raises `DamageError` when there is none that can be read."""
        if shard not in self._records:
            found = self.read(self.paths.record(shard))
            if found is None or found.get("shard") != shard or files_of(found) is None:
                raise DamageError(
                    f"shard {shard} of {self.paths.root} is not committed: run `alens cache` again to write it"
                )
            self._records[shard] = found
        return self._records[shard]

    def unchanged(self) -> bool:
        """Whether the records that were read still name the same files."""
        return all(
            (now := self.read(self.paths.record(shard))) is not None and now.get("files") == record["files"]
            for shard, record in self._records.items()
        )

    def committed(self) -> tuple[int, ...]:
        """The shards with a whole record of this plan, ascending. Records that are known are not read again."""
        found = {path.name for path in self.paths.commits.glob("[0-9]*.json")}
        shards = [shard for shard in range(self.plan.num_shards) if self.paths.record(shard).name in found]
        self._records = {shard: self._records[shard] for shard in shards if shard in self._records}
        return tuple(shard for shard in shards if self._is_whole(shard))

    def _is_whole(self, shard: int) -> bool:
        try:
            self.record(shard)
        except DamageError:
            return False
        return True

    def skeleton(self) -> Record | None:
        """`commits/model.json`: sizes and hashes of all files of `arrays.zarr` that are no shards."""
        found = self.read(self.paths.skeleton)
        return found if found is not None and files_of(found) is not None else None

    def fingerprint(self) -> str | None:
        """Of the manifest of a sealed cache: the hash of all its shard files."""
        found = self.read(self.paths.manifest)
        if found is None or found.get("shards") != self.plan.num_shards or "fingerprint" not in found:
            return None
        return str(found["fingerprint"])

    def read(self, path: Path) -> Record | None:
        """A document of this plan; None when it is absent, damaged, or of another."""
        try:
            found = document.decode(path.read_bytes(), str(path))
        except (OSError, DamageError):
            return None
        return found if found.get("plan") == self._identity else None


def fingerprint(files_by_shard: Mapping[int, Mapping[str, Any]]) -> str:
    """SHA-256 over the hashes of all shard files: two caches with the same one hold the same bytes."""
    digest = hashlib.sha256()
    for shard in sorted(files_by_shard):
        for key, file in sorted(files_by_shard[shard].items()):
            digest.update(f"{key} {file['sha256']}\n".encode())
    return digest.hexdigest()
