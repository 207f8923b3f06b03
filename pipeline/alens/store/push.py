"""Sends a cache to objects at `s3://`: whole parcels, each with its record last, and the manifest at the very end.

In: the directory of a cache, sealed or growing, and an address. Out: objects under the paths that the files have in the
cache, and a `Pushed`. Killed at any time, the next push sends what is missing; two at once are safe. Several machines may
each send shards of one plan that they wrote: the manifest comes when all are there.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alens.errors import DamageError, RequestError, StoppedError
from alens.job.progress import Report, ShouldStop, counting, never, silent
from alens.remote.address import address, refuse
from alens.remote.objects import Objects
from alens.result import Result
from alens.store import document
from alens.store.cache_reader import Cache, open_cache
from alens.store.findings import look
from alens.store.parcels import Files, Parcel, parcels
from alens.store.paths import ARRAYS, MANIFEST, PLAN, StorePaths
from alens.store.schema import Plan
from alens.store.writer import manifest_of

AT_ONCE = 4
"""Files that are sent, or records that are read, at the same time."""


@dataclass(frozen=True, kw_only=True)
class Pushed(Result):
    """What was sent, and what is there now."""

    to: str
    """The address."""
    shards: int
    """Shards of the plan."""
    shards_sent: int
    shards_there: int
    """Shards of this directory that were there before."""
    measured_sent: int
    """Files of effects and Jacobians."""
    bytes_sent: int
    sealed: bool
    """Whether all shards of the plan are there, and the manifest says so."""
    seconds: float
    dry_run: bool
    """Nothing was sent: shards, files and bytes are those that would be."""

    def headline(self) -> str:
        """Shards that were sent, and whether all are there."""
        state = "sealed" if self.sealed else "not sealed"
        return f"{self.shards_sent} of {self.shards} shards sent to {self.to}, {state}"

    def records(self) -> list[dict[str, Any]]:
        """One row."""
        return [self.to_json()]


def push_cache(
    store: str | Path,
    to: str,
    *,
    dry_run: bool = False,
    report: Report = silent,
    should_stop: ShouldStop = never,
) -> Pushed:
    """Send the cache in the directory `store` to the address `to`, s3://BUCKET/PREFIX.

    Raises `RequestError` where another cache or anything else is there, `DamageError` for a file that is not what its
    record says, `RunError` where the network fails, `StoppedError` when asked to stop.
    """
    began = time.monotonic()
    refuse(store, "cannot push from")
    where = address(to)
    if where is None:
        raise RequestError(f"{to} is a path: give an address, s3://BUCKET/PREFIX")
    objects = Objects(where)
    objects.check_writable()
    push = _Push(open_cache(store), objects, report, should_stop)
    push.check_place()
    todo = push.missing()
    sealed = push.send(todo) if not dry_run else False
    shards = [parcel for parcel in todo if parcel.contents == "shard"]
    return Pushed(
        to=str(where),
        shards=push.cache.plan.num_shards,
        shards_sent=len(shards),
        shards_there=len(push.cache.shards) - len(shards),
        measured_sent=sum(parcel.contents == "measured" for parcel in todo),
        bytes_sent=sum(parcel.size for parcel in todo) if dry_run else push.bytes_sent,
        sealed=sealed,
        seconds=time.monotonic() - began,
        dry_run=dry_run,
    )


class _Push:
    """One push. `there` has the bytes of each object, by its path, as they were listed at the beginning."""

    def __init__(self, cache: Cache, objects: Objects, report: Report, should_stop: ShouldStop) -> None:
        self.cache, self.objects = cache, objects
        self._report, self._should_stop = report, should_stop
        self._identity = cache.plan.identity
        self.there = dict(objects.names() or ())
        self.bytes_sent = 0
        self._shard_files: dict[int, Files] = {}
        """Files of shards that are known to be there."""

    def check_place(self) -> None:
        """Raises `RequestError` where another cache is there, or anything else."""
        if PLAN in self.there:
            self._check_plan()
        elif self.there:
            raise RequestError(
                f"{self.objects.address} holds other objects, {min(self.there)} among them: give a prefix that is empty"
            )

    def _check_plan(self) -> None:
        where = self.objects.url(PLAN)
        theirs = Plan.from_json(self.objects.read(PLAN), where)
        if theirs.identity != self._identity:
            raise RequestError(
                f"{self.objects.address} holds another cache (plan {theirs.identity[:12]}, that of {self.cache.root} is "
                f"{self._identity[:12]}): give a prefix that is empty"
            )

    # What is to be sent

    def missing(self) -> list[Parcel]:
        """The parcels that are not there whole. Raises `RequestError` where metadata or weights there are others."""
        mine = list(parcels(self.cache))
        listed = [parcel for parcel in mine if parcel.record in self.there]
        done = counting(self._report, "comparing", "records", len(listed))
        todo = [parcel for parcel in mine if parcel.record not in self.there]
        for parcel, files in zip(listed, self._each(self._files_there, listed), strict=True):
            self._stop_if_asked()
            if files is None or any(self.there.get(path) != file["bytes"] for path, file in files.items()):
                todo.append(parcel)
            elif parcel.contents == "shard":
                self._shard_files[_number(parcel.record)] = files
            done(1)
        order = {parcel.record: place for place, parcel in enumerate(mine)}
        return sorted(todo, key=lambda parcel: order[parcel.record])

    def _files_there(self, parcel: Parcel) -> Files | None:
        where = self.objects.url(parcel.record)
        try:
            content = self.objects.read(parcel.record)
        except (FileNotFoundError, DamageError):
            return None
        files = parcel.files_there(content, where, self._identity)
        if parcel.contents == "skeleton" and files is not None and files != parcel.files:
            raise RequestError(
                f"{where} names other metadata or weights than {self.cache.paths.skeleton}: they were written by another "
                "version; give a prefix that is empty"
            )
        return files

    # Sending

    def send(self, todo: Sequence[Parcel]) -> bool:
        """Send them, each with its record last; whether the cache is sealed there."""
        if PLAN not in self.there and not self.objects.create(PLAN, self.cache.paths.plan.read_bytes()):
            self._check_plan()  # another push may have put it since the objects were listed
        sent = counting(self._report, "push", "bytes", sum(parcel.size for parcel in todo))
        for parcel in todo:
            paths = list(parcel.files)
            for path, _ in zip(paths, self._each(partial(self._file, parcel), paths), strict=True):
                sent(parcel.files[path]["bytes"])
            self._stop_if_asked()
            self.objects.put(parcel.record, parcel.content)
            self.bytes_sent += len(parcel.content)
            sent(len(parcel.content))
            if parcel.contents == "shard":
                self._shard_files[_number(parcel.record)] = parcel.files
        return self._seal()

    def _file(self, parcel: Parcel, path: str) -> None:
        self._stop_if_asked()
        recorded = parcel.files[path]
        if self.there.get(path) == recorded["bytes"] and self.objects.sha256_of(path) == recorded["sha256"]:
            return  # left by a push that was stopped before it sent the record
        local = self.cache.paths.root / path
        if (trouble := look(local, recorded)) is not None:
            raise DamageError(
                f"{local} {trouble.what}: `alens verify {self.cache.root} --repair` queues it; its record was not sent"
            )
        self.objects.put(path, local, recorded["sha256"])
        self.bytes_sent += recorded["bytes"]

    def _seal(self) -> bool:
        """Put the manifest where all shards are there, those of other pushes too."""
        plan = self.cache.plan
        names = {StorePaths(Path()).record(shard).as_posix(): shard for shard in range(plan.num_shards)}
        there = {names[path] for path, _ in self.objects.names() or () if path in names}
        if len(there) < plan.num_shards:
            return False
        others = sorted(there - self._shard_files.keys())
        for shard, files in zip(others, self._each(self._others_files, others), strict=True):
            if files is None:
                return False
            self._shard_files[shard] = files
        by_key = {
            shard: {path.removeprefix(f"{ARRAYS}/"): file for path, file in files.items()}
            for shard, files in self._shard_files.items()
        }
        content = document.encode(manifest_of(plan, by_key))
        if self.there.get(MANIFEST) != len(content) or self.objects.read(MANIFEST) != content:
            self.objects.put(MANIFEST, content)
        return True

    def _others_files(self, shard: int) -> Files | None:
        """The files of a shard that this directory does not have."""
        record = StorePaths(Path()).record(shard).as_posix()
        empty = Parcel(contents="shard", record=record, content=b"", files={})
        return empty.files_there(self.objects.read(record), self.objects.url(record), self._identity)

    def _each(self, work: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """What `work` gives for each item, in order, some at a time. The first error ends it."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="alens-push") as pool:
            try:
                yield from pool.map(work, items)
            finally:
                pool.shutdown(cancel_futures=True)

    def _stop_if_asked(self) -> None:
        if self._should_stop():
            raise StoppedError(
                f"stopped; what {self.objects.address} holds whole is kept: run again to send the rest"
            )


def _number(record: str) -> int:
    return int(Path(record).stem)
