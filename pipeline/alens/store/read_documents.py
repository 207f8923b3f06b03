"""Reads all JSON documents of a cache, whole or not: `verify` begins with them.

In: a cache directory. Out: for each document its object, its bytes and what is wrong with it; the plan where it is
whole, otherwise what the other documents say about it. Only a cache of another format raises an error here.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from alens.errors import DamageError
from alens.store import typed
from alens.store.arrays import ArraySpec, all_arrays
from alens.store.commits import numbered
from alens.store.document import MEND
from alens.store.findings import Trouble, read_document
from alens.store.paths import MANIFEST, SKELETON, StorePaths
from alens.store.records import FilesRecord, Manifest, ShardRecord
from alens.store.schema import Plan

KINDS: dict[str, type[Any]] = {MANIFEST: Manifest, SKELETON: FilesRecord}
"""The contents of these documents; the others are `ShardRecord`s."""

Read = tuple[dict[str, Any] | None, bytes, Trouble | None]


class Documents:
    """The documents of one cache, read once.

    Attributes: `plan` (None where it is not whole), `plan_content`, `plan_trouble`, `specs` (the arrays of the plan by
    name), `identity` (of the plan, or the one that most documents name), `shards` (the planned number; None where it is
    not known), `by_path` (relative to the cache: manifest, skeleton, then the records on disk, ascending).
    """

    def __init__(self, root: Path) -> None:
        """Raises `RequestError` for a cache of another format."""
        self.paths = StorePaths(root)
        self.plan: Plan | None = None
        self.specs: dict[str, ArraySpec] = {}
        self.identity: str | None = None
        self.shards: int | None = None
        self.plan_content, self.plan_trouble = self._read_plan()
        self.by_path = {
            MANIFEST: read_document(self.paths.manifest)
        }  # first: the files that it names are older
        for path in (SKELETON, *self._record_paths()):
            self.by_path[path] = read_document(root / path)
        if self.plan is None:
            bodies = [body for body, _, _ in self.by_path.values() if body is not None]
            carried = Counter(str(body.get("plan")) for body in bodies).most_common(1)
            self.identity = carried[0][0] if carried else None

    def _read_plan(self) -> tuple[bytes, Trouble | None]:
        body, content, trouble = read_document(self.paths.plan)
        if body is None:
            return content, trouble
        try:
            self.plan = Plan.from_json(content, str(self.paths.plan))
        except DamageError as error:
            what = str(error).removeprefix(f"{self.paths.plan} ").removesuffix(f": {MEND}")
            return content, Trouble("damaged", what)
        self.identity, self.shards, self.specs = (
            self.plan.identity,
            self.plan.num_shards,
            all_arrays(self.plan),
        )
        return content, None

    def _record_paths(self) -> list[str]:
        """The records on disk. Only these are looked at: plan and manifest may speak of millions of shards."""
        manifest, _, _ = self.by_path[MANIFEST]
        if self.plan is None and manifest is not None and typed.wrong(Manifest, manifest) is None:
            self.shards = manifest["shards"]
        shards = [shard for shard in numbered(self.paths) if self.shards is None or shard < self.shards]
        return [f"commits/{self.paths.record(shard).name}" for shard in shards]

    def trouble(self, path: str) -> Trouble | None:
        """What is wrong with a document by itself. None: it belongs to this plan, and its fields are possible."""
        body, _, trouble = self.by_path[path]
        if trouble is not None or body is None:
            return trouble
        if body.get("plan") != self.identity:
            return Trouble("damaged", "is of another plan")
        what = typed.wrong(KINDS.get(path, ShardRecord), body)
        return None if what is None else Trouble("damaged", f"is not whole ({what})")

    @property
    def committed_anything(self) -> bool:
        """Whether there is a document, whole or not, that jobs write only after the plan."""
        troubles = [trouble for path, (_, _, trouble) in self.by_path.items() if path != SKELETON]
        return any(trouble is None or trouble.kind == "damaged" for trouble in troubles)

    @property
    def sealed(self) -> bool:
        """Whether a manifest of this plan says that every shard is committed."""
        manifest, _, _ = self.by_path[MANIFEST]
        return manifest is not None and manifest.get("plan") == self.identity

    def records(self) -> dict[int, str]:
        """The paths of the records on disk, by shard."""
        paths = [path for path in self.by_path if path not in KINDS]
        return {int(path.removeprefix("commits/").removesuffix(".json")): path for path in paths}
